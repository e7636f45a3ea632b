// Policies that read statistics: which tokens they choose when the statistics are known.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "cache/policies/pivots.h"
#include "cache/policy.h"

namespace tessera {
namespace {

using testing::ElementsAre;

std::vector<int32_t> AllOf(int n) {
  std::vector<int32_t> all(n);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

TEST(Pivots, TopKTakesTheLargestTokensAndTheEarlierOfEqualOnes) {
  const std::vector<float> peaks = {1, 9, 5, 9, 7, 5};
  const LayerStats stats = {.peaks_per_token = 1, .peaks = peaks};
  EXPECT_THAT(FindPivots(PivotRule::kTopK, 3, AllOf(6), stats), ElementsAre(1, 3, 4));
  EXPECT_THAT(FindPivots(PivotRule::kTopK, 4, AllOf(6), stats), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(FindPivots(PivotRule::kTopK, 2, std::vector<int32_t>{0, 2, 5}, stats),
              ElementsAre(2, 5));
  EXPECT_EQ(FindPivots(PivotRule::kTopK, 64, AllOf(6), stats), AllOf(6));
  EXPECT_TRUE(FindPivots(PivotRule::kTopK, 3, {}, stats).empty());
}

TEST(Pivots, EntriesOfOneTokenCountEach) {
  const std::vector<float> peaks = {9, 8, 7, /**/ 6, 1, 0, /**/ 8, 2, 1, /**/ 5, 5, 5};
  const LayerStats stats = {.peaks_per_token = 3, .peaks = peaks};
  // 9 8 8 | 7 6 5: three entries lie on two tokens.
  EXPECT_THAT(FindPivots(PivotRule::kTopKEntries, 3, AllOf(4), stats), ElementsAre(0, 2));
  EXPECT_THAT(FindPivots(PivotRule::kTopK, 3, AllOf(4), stats), ElementsAre(0, 1, 2));
  EXPECT_EQ(PivotNeeds(PivotRule::kTopKEntries, 15).residual_peaks, 15);
}

TEST(Pivots, ThresholdAsksForBoth) {
  const std::vector<float> peaks = {100, 101, 5000, 101, 3000};
  const std::vector<float> medians = {.01f, .2f, 4.9f, .1f, 3.0f};
  const LayerStats stats = {.peaks_per_token = 1, .peaks = peaks, .medians = medians};
  EXPECT_THAT(FindPivots(PivotRule::kThreshold, 9, AllOf(5), stats), ElementsAre(2, 3));
  EXPECT_THAT(FindPivots(PivotRule::kThreshold, 1, AllOf(5), stats), ElementsAre(2));
  EXPECT_TRUE(PivotNeeds(PivotRule::kThreshold, 15).residual_medians);
  EXPECT_FALSE(PivotNeeds(PivotRule::kTopK, 0).any());
}

}  // namespace
}  // namespace tessera
