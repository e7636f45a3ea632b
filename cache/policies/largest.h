// The choice that most selectors end in: the tokens of the largest scores.
#pragma once

#include <cstdint>
#include <vector>

namespace tessera {

struct ScoredToken {
  float score;
  int32_t position;
};

// Positions of the `count` largest scores, ascending; of equal scores the earlier position.
// `tokens` in order of position, which are at least 0. A NaN counts as larger than any number (as
// smaller, if its sign is set), so that every choice is defined. 0 <= count <= tokens. O(tokens).
std::vector<int32_t> Largest(const std::vector<ScoredToken>& tokens, int64_t count);

}  // namespace tessera
