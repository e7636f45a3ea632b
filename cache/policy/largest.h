// The choice that most selectors end in: the tokens of the largest scores.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace tessera {

// Indices of the `count` largest scores (ScoreOrder), ascending; of equal scores the earlier.
// 0 <= count <= scores. O(scores).
std::vector<int32_t> Largest(absl::Span<const float> scores, int64_t count);

}  // namespace tessera
