// The order in which selectors take tokens by their scores, one on the host and on the device.
#pragma once

#include <cstdint>

namespace tessera {

// Larger for larger scores, equal for 0 and -0. All NaNs are the largest: their signs mean nothing,
// and are not the same on every machine.
constexpr int32_t ScoreOrder(float score) {
  // std::bit_cast, which CUDA's C++17 lacks. -0 becomes 0.
  const auto bits = __builtin_bit_cast(int32_t, score + 0.0f);
  return score != score ? INT32_MAX : bits ^ (bits >> 31 & 0x7fffffff);
}

}  // namespace tessera
