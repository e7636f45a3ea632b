// The choice that most selectors end in: the tokens of the largest scores.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace tessera {

// Indices of the `count` largest scores, ascending; of equal scores the earlier. A NaN counts as
// larger than any number (as smaller, if its sign is set), so that every choice is defined.
// 0 <= count <= scores. O(scores).
std::vector<int32_t> Largest(absl::Span<const float> scores, int64_t count);

}  // namespace tessera
