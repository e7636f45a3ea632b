// The order of scores in which selectors take tokens: the same on the host and on the device.
#pragma once

#include <cstdint>

namespace tessera {

// Returns a key that is larger for larger scores and equal for 0 and -0. Every NaN has the largest
// key: the sign of a NaN has no meaning and differs between machines.
constexpr int32_t ScoreOrder(float score) {
  // This is std::bit_cast, which CUDA's C++17 lacks. Adding 0 turns -0 into 0.
  const auto bits = __builtin_bit_cast(int32_t, score + 0.0f);
  return score != score ? INT32_MAX : bits ^ (bits >> 31 & 0x7fffffff);
}

}  // namespace tessera
