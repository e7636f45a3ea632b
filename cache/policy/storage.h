// How a layer's tokens are stored, and the moves that bring them there: the interface from policies
// to the sequence cache, and from the sequence cache to the kernels.
//
// The newest tokens of a layer, its window, are RAW16. Older tokens leave the window in groups of
// kExitTokens and are stored in the format of their class. Threads: plain values.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/layout/page_layout.h"
#include "kernels/layout/quantize.h"
#include "kernels/ops.h"

namespace tessera {

enum class TokenClass : uint8_t { kText, kVision };

// Returns the class of the token at `position`. `vision` [prompt tokens] is not 0 for vision tokens
// and differs between images that touch (SegmentsOf). Generated tokens are text.
inline TokenClass ClassAt(absl::Span<const uint8_t> vision, int64_t position) {
  return position < static_cast<int64_t>(vision.size()) && vision[position] != 0
             ? TokenClass::kVision
             : TokenClass::kText;
}

// Tokens leave the window in groups of this size. A group fills whole pages of the formats that
// need it, and empties whole RAW16 pages.
constexpr int kExitTokens = 32;

// Returns [prompt tokens]: for an image token its image's number, counted from 0; for a text token
// the number of the image before it, or -1.
std::vector<int32_t> SegmentsOf(absl::Span<const uint8_t> vision);

// How one layer stores the tokens that are older than its window.
struct LayerStorage {
  Format text = Format::kRaw16;
  Format vision = Format::kRaw16;
  QuantRule text_rule;  // equal to vision_rule if the formats are equal
  QuantRule vision_rule;
  int window = 0;
  LogitMap vision_map;  // applied to logits of runs that hold vision alone

  Format FormatOf(TokenClass c) const { return c == TokenClass::kText ? text : vision; }
  const QuantRule& RuleOf(Format f) const { return f == text ? text_rule : vision_rule; }
  // Returns whether every token stays in the open run.
  bool raw() const { return text == Format::kRaw16 && vision == Format::kRaw16; }
  // Returns whether tokens leave the window after the commit. With text at 16 bit none does:
  // generated tokens are text, and vision tokens are moved by the commit at any age.
  bool exits() const { return text != Format::kRaw16; }
  // Returns whether the combination can be stored. A format that fills whole pages must be the
  // format of both classes: its tokens leave in order, and those that do not fill a page stay the
  // oldest of the open run. A format with a header can be vision's alone, with text at 16 bit,
  // because a segment is stored at once.
  bool Valid() const;
};

// The arguments of one call of Ops::MoveTokens. It may have moves of several layers and sequences.
struct MoveBatch {
  Format to = Format::kRaw16;
  QuantRule rule;
  std::vector<TokenMove> moves;
};

// Returns the batch of `batches` with that format and rule. If there is none, reuses the first
// empty batch or appends one. Batches with moves precede empty ones, provided that every returned
// batch gets a move.
MoveBatch& BatchFor(std::vector<MoveBatch>& batches, Format to, const QuantRule& rule);

}  // namespace tessera
