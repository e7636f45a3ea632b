// How a layer's tokens are stored, and the moves that bring them there: what policies say to the
// sequence cache, and the sequence cache to the kernels.
//
// The newest tokens of a layer, its window, are RAW16. What is older leaves the window in groups of
// kExitTokens and is stored in the format of its class. Threads: plain values.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/layout/page_layout.h"
#include "kernels/layout/quantize.h"
#include "kernels/ops.h"

namespace tessera {

enum class TokenClass : uint8_t { kText, kVision };

// The class of the token at `position`; `vision` [prompt tokens] is not 0 for vision tokens, and
// differs between neighbouring images (SegmentsOf). Generated tokens are text.
inline TokenClass ClassAt(absl::Span<const uint8_t> vision, int64_t position) {
  return position < static_cast<int64_t>(vision.size()) && vision[position] != 0
             ? TokenClass::kVision
             : TokenClass::kText;
}

// Tokens leave the window together in such groups: they fill whole pages of the formats that must
// be filled at once, and empty whole RAW16 pages.
constexpr int kExitTokens = 32;

// [prompt tokens] A number for each image, ascending from 0, at each of its tokens; text has that
// of the image before it, or -1.
std::vector<int32_t> SegmentsOf(absl::Span<const uint8_t> vision);

// How one layer stores tokens that are older than its window.
struct LayerStorage {
  Format text = Format::kRaw16;
  Format vision = Format::kRaw16;
  QuantRule text_rule;  // equal to vision_rule where the formats are equal
  QuantRule vision_rule;
  int window = 0;
  LogitMap vision_map;  // how attention reads the runs that hold vision alone

  Format FormatOf(TokenClass c) const { return c == TokenClass::kText ? text : vision; }
  const QuantRule& RuleOf(Format f) const { return f == text ? text_rule : vision_rule; }
  // Everything stays in the open run.
  bool raw() const { return text == Format::kRaw16 && vision == Format::kRaw16; }
  // Where text is stored at 16 bit nothing leaves the open run after the commit, at which vision
  // leaves it whatever its age: generated tokens are text.
  bool exits() const { return text != Format::kRaw16; }
  // A format that fills whole pages must be that of both classes: its tokens leave in order, and
  // those that do not fill a page stay the oldest of the open run. One with a header can be that of
  // vision alone, beside text at 16 bit: a segment is stored at once.
  bool Valid() const;
};

// One call of Ops::MoveTokens. Moves of several layers and sequences may stand in one.
struct MoveBatch {
  Format to = Format::kRaw16;
  QuantRule rule;
  std::vector<TokenMove> moves;
};

// The batch of `batches` with that format and rule; when there is none, the first that is empty, or
// one that is added. What has moves stands before what is empty, if each that is returned gets
// some.
MoveBatch& BatchFor(std::vector<MoveBatch>& batches, Format to, const QuantRule& rule);

}  // namespace tessera
