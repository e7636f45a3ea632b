// A run: one segment of a layer's block table, pages of one format (sequence_cache.h). It is never
// empty.
//
// Threads: plain values.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "cache/policy/storage.h"
#include "kernels/layout/page_layout.h"

namespace tessera {

struct Run {
  Format format = Format::kRaw16;
  std::vector<PageId> pages;
  int32_t tokens = 0;
  bool open = false;
  // Logical positions, ascending: `listed` has the first tokens', the rest are consecutive from
  // `tail`. A closed run lists all.
  std::vector<int32_t> listed;
  int32_t tail = 0;
  PageId header = kNoPage;  // if HasHeader(format): the image's quantization scales
  LogitMap map;             // applied to the run's logits by attention

  int32_t Position(int32_t index) const {
    const auto n = static_cast<int32_t>(listed.size());
    return index < n ? listed[index] : tail + index - n;
  }
  std::vector<int32_t> Positions() const {  // returns [tokens]
    std::vector<int32_t> positions(tokens);
    for (int32_t i = 0; i < tokens; ++i) positions[i] = Position(i);
    return positions;
  }
};

inline constexpr QuantRule kCopyRule;  // RAW16 to RAW16 has no parameters

// Appends the tokens of the open run at `indices` to `to`, and their moves to `batch`. The pages of
// `to` must have room for them.
void AppendMoves(const Run& open, absl::Span<const int32_t> indices, Run* to, MoveBatch* batch);

}  // namespace tessera
