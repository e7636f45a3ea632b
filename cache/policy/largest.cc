#include "cache/policy/largest.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "base/base.h"
#include "kernels/layout/score_order.h"

namespace tessera {
namespace {

// Stores the scores' sort keys and returns the smallest and the largest. A separate loop, so that
// the compiler vectorizes it.
std::pair<int32_t, int32_t> Keys(absl::Span<const float> scores, int32_t* keys) {
  int32_t low = INT32_MAX, high = INT32_MIN;
  for (size_t i = 0; i < scores.size(); ++i) {
    keys[i] = ScoreOrder(scores[i]);
    low = std::min(low, keys[i]);
    high = std::max(high, keys[i]);
  }
  return {low, high};
}

constexpr int kBinBits = 11;

}  // namespace

// Selects in three passes without a branch on a score. Pass 1 finds the range of the keys. Pass 2
// counts the keys in equal parts (bins) of that range; scores tend to be close together, so the bin
// with rank `count` still holds few. Pass 3 takes the tokens of that bin and of those above it.
// Only the tokens of that bin are then compared with each other.
std::vector<int32_t> Largest(absl::Span<const float> scores, int64_t count) {
  const auto n = static_cast<int64_t>(scores.size());
  TESSERA_CHECK(0 <= count && count <= n);
  if (count == 0) return {};
  std::vector<int32_t> keys(n);
  const auto [low, high] = Keys(scores, keys.data());
  const auto below = [most = static_cast<uint32_t>(high)](int32_t key) {
    return most - static_cast<uint32_t>(key);
  };
  const int shift = std::max(0, static_cast<int>(std::bit_width(below(low))) - kBinBits);
  std::vector<uint16_t> bin_of(n);
  for (int64_t i = 0; i < n; ++i) bin_of[i] = static_cast<uint16_t>(below(keys[i]) >> shift);
  std::array<int32_t, size_t{1} << kBinBits> bins = {};  // the largest keys first
  for (const uint16_t bin : bin_of) ++bins[bin];
  uint16_t bin = 0;
  int64_t rank = count - 1;  // of the last token to take, inside its bin
  while (rank >= bins[bin]) rank -= bins[bin++];

  const int64_t found = count - 1 - rank + bins[bin];
  std::vector<int32_t> taken(found + 1);  // the extra element absorbs the last write
  for (int64_t i = 0, at = 0; i < n; ++i) {
    taken[at] = static_cast<int32_t>(i);
    at += int64_t{bin_of[i] <= bin};
  }
  // The order ascends from the largest score; among equal scores the earlier token comes first.
  const auto order = [&](int32_t i) { return uint64_t{below(keys[i])} << 32 | uint32_t(i); };
  std::vector<uint64_t> near(bins[bin] + 1);
  for (int64_t i = 0, at = 0; i < found; ++i) {
    near[at] = order(taken[i]);
    at += int64_t{bin_of[taken[i]] == bin};
  }
  std::nth_element(near.begin(), near.begin() + rank, near.end() - 1);
  const uint64_t last = near[rank];
  for (int64_t i = 0, at = 0; i < found; ++i) {
    const int32_t token = taken[i];
    taken[at] = token;
    at += int64_t{order(token) <= last};
  }
  taken.resize(count);
  return taken;
}

}  // namespace tessera
