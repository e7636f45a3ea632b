// Top-k selection: the tokens with the largest scores.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace tessera {

// Returns the indices of the `count` largest scores (ScoreOrder), ascending. The earlier of equal
// scores wins. REQUIRES: 0 <= count <= scores.size(). Takes time linear in the number of scores.
std::vector<int32_t> Largest(absl::Span<const float> scores, int64_t count);

}  // namespace tessera
