#include "cache/policies/largest.h"

#include <algorithm>
#include <array>
#include <bit>
#include <functional>

#include "kernels/base.h"

namespace tessera {
namespace {

// Orders as scores do, NaNs at the ends.
int32_t Key(float score) {
  const auto bits = std::bit_cast<int32_t>(score + 0.0f);  // -0 is 0
  return bits ^ (bits >> 31 & 0x7fffffff);
}

constexpr int kBinBits = 11;

}  // namespace

// One pass finds the range of the keys, one counts them in equal parts of it: scores are apt to lie
// close together, and the part in which rank `count` falls holds few all the same. Only those are
// compared with one another. No branch of a pass depends on a score.
std::vector<int32_t> Largest(absl::Span<const float> scores, int64_t count) {
  const auto n = static_cast<int64_t>(scores.size());
  TESSERA_CHECK(0 <= count && count <= n);
  if (count == 0) return {};
  std::vector<int32_t> keys(n);
  int32_t low = INT32_MAX, high = INT32_MIN;
  for (int64_t i = 0; i < n; ++i) {
    keys[i] = Key(scores[i]);
    low = std::min(low, keys[i]);
    high = std::max(high, keys[i]);
  }
  const auto below = [high](int32_t key) {
    return static_cast<uint32_t>(high) - static_cast<uint32_t>(key);
  };
  const int shift = std::max(0, static_cast<int>(std::bit_width(below(low))) - kBinBits);
  std::array<int32_t, size_t{1} << kBinBits> bins = {};  // the largest keys first
  for (const int32_t key : keys) ++bins[below(key) >> shift];
  uint32_t bin = 0;
  int64_t rank = count - 1;  // in its bin, from the largest
  while (rank >= bins[bin]) rank -= bins[bin++];

  std::vector<int32_t> near(bins[bin] + 1);  // one more, which is written in vain
  int64_t found = 0;
  for (const int32_t key : keys) {
    near[found] = key;
    found += int64_t{below(key) >> shift == bin};
  }
  near.pop_back();
  std::nth_element(near.begin(), near.begin() + rank, near.end(), std::greater<>());
  const int32_t last = near[rank];  // the smallest that is taken, but not all that equal it
  const int64_t equal = 1 + std::count(near.begin(), near.begin() + rank, last);
  int64_t end = 0;  // of those that equal it and are taken
  for (int64_t left = equal; left > 0; ++end) left -= int64_t{keys[end] == last};

  std::vector<int32_t> taken(count + 1);
  int64_t at = 0;
  const auto take = [&](int64_t begin, int64_t stop, int64_t least) {
    for (int64_t i = begin; i < stop; ++i) {
      taken[at] = static_cast<int32_t>(i);
      at += int64_t{keys[i] >= least};
    }
  };
  take(0, end, last);
  take(end, n, int64_t{last} + 1);
  taken.pop_back();
  return taken;
}

}  // namespace tessera
