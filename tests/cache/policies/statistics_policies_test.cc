// Policies that read statistics: which tokens they choose when the statistics are known.
#include <gmock/gmock.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <iterator>
#include <numeric>
#include <random>

#include "cache/policies/registry.h"
#include "cache/policy/budget.h"
#include "cache/policy/largest.h"
#include "cache/policy/pivots.h"
#include "cache/policy/policy.h"
#include "kernels/host/reference_statistics.h"

namespace tessera {
namespace {

using testing::ElementsAre;

std::vector<int32_t> AllOf(int n) {
  std::vector<int32_t> all(n);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

TEST(Largest, TakesTheEarlierOfEqualScoresAndOrdersByIndex) {
  const std::vector<float> scores = {-1, 0, -0.0f, 7, 0, -3};
  EXPECT_THAT(Largest(scores, 0), ElementsAre());
  EXPECT_THAT(Largest(scores, 1), ElementsAre(3));
  EXPECT_THAT(Largest(scores, 3), ElementsAre(1, 2, 3));  // -0 equals 0
  EXPECT_THAT(Largest(scores, 5), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(Largest(scores, 6), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(Largest({}, 0), ElementsAre());
  EXPECT_THAT(Largest({1, NAN, INFINITY, -INFINITY}, 2), ElementsAre(1, 2));
  EXPECT_THAT(Largest({1, -NAN, -INFINITY, 0}, 3), ElementsAre(0, 1, 3));
}

// The sets of scores: many equal; close together; over all magnitudes; close together with one
// outlier; all equal; the extremes of float.
TEST(Largest, IsASortedOrdersBeginning) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  const float ends[] = {INFINITY, FLT_MAX, 1, FLT_TRUE_MIN, -FLT_TRUE_MIN, -FLT_MAX, -INFINITY};
  for (const int kind : {0, 1, 2, 3, 4, 5}) {
    std::vector<float> scores(3000);
    for (float& s : scores) {
      s = kind == 0   ? static_cast<float>(static_cast<int>(random() % 64) - 32)
          : kind == 2 ? std::ldexp(normal(random), static_cast<int>(random() % 200) - 100)
          : kind == 4 ? -2.5f
          : kind == 5 ? ends[random() % std::size(ends)]
                      : 136 + 4 * normal(random);
    }
    if (kind == 3) scores[1234] = NAN;
    std::vector<int32_t> order = AllOf(3000);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return std::isnan(scores[a]) ? !std::isnan(scores[b]) : scores[a] > scores[b];
    });
    for (const int64_t count : {1, 37, 600, 2999, 3000}) {
      std::vector<int32_t> expected(order.begin(), order.begin() + count);
      std::sort(expected.begin(), expected.end());
      EXPECT_EQ(Largest(scores, count), expected) << kind << " " << count;
    }
  }
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

TEST(ShareOut, ProportionalClippedRedistributedAndWhole) {
  EXPECT_THAT(ShareOut(100, {1, 3, 1}, 0, 100), ElementsAre(20, 60, 20));
  EXPECT_THAT(ShareOut(10, {1, 1, 1}, 0, 10), ElementsAre(4, 3, 3));  // largest remainder
  EXPECT_THAT(ShareOut(11, {2, 5, 4}, 0, 9), ElementsAre(2, 5, 4));
  // Layer 1's share would be 8 of 10. It is clipped to 5, and the others share the 3 in proportion.
  EXPECT_THAT(ShareOut(10, {1, 16, 3}, 0, 5), ElementsAre(1, 5, 4));
  // The other layers pay for the minimum.
  EXPECT_THAT(ShareOut(40, {0, 1, 3}, 4, 100), ElementsAre(4, 9, 27));
  EXPECT_THAT(ShareOut(9, {0, 0, 0}, 0, 9), ElementsAre(3, 3, 3));
  EXPECT_THAT(ShareOut(7, {0, 1, 0}, 0, 5), ElementsAre(1, 5, 1));
  EXPECT_THAT(ShareOut(0, {1, 2}, 0, 0), ElementsAre(0, 0));
  EXPECT_THAT(ShareOut(10, {1, NAN, 1}, 2, 9), ElementsAre(4, 2, 4));
  EXPECT_THAT(ShareOut(9, {INFINITY, NAN, -NAN}, 0, 9), ElementsAre(3, 3, 3));
}

TEST(ShareOut, SumsUpAndNeverFavoursTheSmallerWeight) {
  std::mt19937 rng(5);
  for (int round = 0; round < 300; ++round) {
    const int n = 1 + static_cast<int>(rng() % 40);
    std::vector<double> weights;
    for (int i = 0; i < n; ++i) weights.push_back(std::pow(10, static_cast<double>(rng() % 9)));
    const int64_t min = rng() % 5, max = min + 1 + rng() % 500;
    const int64_t total = n * min + static_cast<int64_t>(rng() % (n * (max - min) + 1));
    const std::vector<int64_t> shares = ShareOut(total, weights, min, max);
    EXPECT_EQ(std::accumulate(shares.begin(), shares.end(), int64_t{0}), total);
    for (int i = 0; i < n; ++i) {
      EXPECT_GE(shares[i], min);
      EXPECT_LE(shares[i], max);
      for (int j = 0; j < n; ++j) {
        EXPECT_TRUE(weights[i] >= weights[j] || shares[i] <= shares[j] + 1) << i << " " << j;
      }
    }
  }
}

// Returns statistics in which token t of layer l deviates by `deviation[l][t]` and all energies are
// 1.
Selection Choose(absl::string_view policy, const std::vector<uint8_t>& vision,
                 const std::vector<std::vector<float>>& deviation) {
  const size_t tokens = vision.size();
  std::vector<LayerStats> layers;
  std::vector<std::vector<int32_t>> ranks;
  std::vector<std::vector<double>> sums;
  for (const std::vector<float>& layer : deviation) {
    std::vector<float> residuals;
    for (const float d : layer) residuals.insert(residuals.end(), {d * .75f, d * .25f, 1, 1});
    ReferenceRankTokens(residuals.data(), vision.data(), 1, static_cast<int64_t>(tokens),
                        ranks.emplace_back(tokens).data(), sums.emplace_back(8).data());
    layers.push_back({.low_pass = {{}, ranks.back(), sums.back()}});
  }
  return (*ParsePolicy(policy))
      ->Select(PromptView{vision}, layers, {static_cast<int>(layers.size()), 1, 64});
}

TEST(FlashCache, KeepsWhatDeviatesMostAndBudgetsByOutlierEnergy) {
  constexpr int kTokens = 200;
  std::vector<std::vector<float>> deviation(2, std::vector<float>(kTokens));
  for (int t = 0; t < kTokens; ++t) {
    deviation[0][t] = static_cast<float>(t * 37 % kTokens + 1) * 1e-3f;
  }
  for (int t = 0; t < kTokens; ++t) deviation[1][t] = 3 * deviation[0][kTokens - 1 - t];
  const std::vector<uint8_t> vision(kTokens, 1);
  // R is three times as large in layer 1, so it gets 60 of 2 * 200 * .2 = 80 tokens.
  const Selection kept = Choose("flashcache", vision, deviation);
  EXPECT_EQ(kept[0].size(), 20u);
  EXPECT_EQ(kept[1].size(), 60u);
  for (int layer = 0; layer < 2; ++layer) {
    std::vector<float> sorted = deviation[layer];
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    const float least = sorted[kept[layer].size() - 1];
    for (const int32_t t : kept[layer]) EXPECT_GE(deviation[layer][t], least);
  }
  const Selection uniform = Choose("flashcache(budget=uniform)", vision, deviation);
  EXPECT_EQ(uniform[0].size(), 40u);
  EXPECT_EQ(uniform[1].size(), 40u);
  // Each layer gets at least one block and at most all tokens; the rest goes to the other layer.
  EXPECT_EQ(Choose("flashcache(tokens=20)", vision, deviation)[0].size(), 16u);
  EXPECT_EQ(Choose("flashcache(tokens=20)", vision, deviation)[1].size(), 24u);
  EXPECT_EQ(Choose("flashcache(keep=0.9)", vision, deviation)[0].size(), 160u);
  EXPECT_EQ(Choose("flashcache(keep=0.9)", vision, deviation)[1].size(), 200u);
  EXPECT_EQ(Choose("flashcache(keep=1)", vision, deviation), Selection(2, AllOf(kTokens)));
}

// Scattered or contiguous statistics choose the same tokens. Statistics of other tokens are not
// read.
TEST(FlashCache, ReadsTheTokensOfItsScopeWhereverTheyLie) {
  constexpr int kTokens = 201;
  std::vector<int32_t> places, others;
  std::vector<uint8_t> vision(400);
  for (int t = 0; t < 400; ++t) {
    vision[t] = t < 100 ? t % 2 : t >= 150 && t < 301;
    (vision[t] != 0 ? places : others).push_back(t);
  }
  ASSERT_EQ(std::ssize(places), kTokens);
  std::vector<std::vector<float>> together(2), scattered(2, std::vector<float>(400, NAN));
  for (int t = 0; t < kTokens; ++t) {
    together[0].push_back(static_cast<float>(t * 37 % kTokens + 1) * 1e-3f);
    together[1].push_back(3 * static_cast<float>(t * 53 % kTokens + 1) * 1e-3f);
    for (int layer = 0; layer < 2; ++layer) scattered[layer][places[t]] = together[layer][t];
  }
  Selection expected = Choose("flashcache", std::vector<uint8_t>(kTokens, 1), together);
  EXPECT_EQ(expected[0].size(), 20u);
  EXPECT_EQ(expected[1].size(), 60u);
  for (std::vector<int32_t>& layer : expected) {
    for (int32_t& t : layer) t = places[t];
    layer.insert(layer.end(), others.begin(), others.end());
    std::sort(layer.begin(), layer.end());
  }
  EXPECT_EQ(Choose("flashcache(scope=visual)", vision, scattered), expected);
}

// A model whose numbers overflow answers nonsense, but as many tokens stay as for any other.
TEST(FlashCache, NumbersThatAreNotFiniteDoNoHarm) {
  for (const float bad : {INFINITY, -INFINITY, NAN}) {
    std::vector<std::vector<float>> deviation(2, std::vector<float>(100, .01f));
    deviation[0][7] = deviation[1][9] = deviation[1][11] = bad;
    const Selection kept = Choose("flashcache", std::vector<uint8_t>(100, 1), deviation);
    EXPECT_EQ(kept[0].size() + kept[1].size(), 40u) << bad;
  }
}

TEST(FlashCache, SinksRecentAndTextStay) {
  std::vector<uint8_t> vision(100, 1);
  std::fill(vision.begin(), vision.begin() + 10, 0);
  std::fill(vision.begin() + 90, vision.end(), 0);
  std::vector<std::vector<float>> deviation(2, std::vector<float>(100, .01f));
  for (int t = 40; t < 60; ++t) deviation[0][t] = deviation[1][t] = .02f;
  const Selection forced = Choose("flashcache(tokens=20, sinks=3, recent=4)", vision, deviation);
  for (const int32_t t : {0, 1, 2, 96, 97, 98, 99}) {
    EXPECT_THAT(forced[0], testing::Contains(t));
  }
  EXPECT_EQ(forced[0].size(), 20u);
  EXPECT_THAT(forced[1], testing::Contains(40));
  const Selection visual = Choose("flashcache(keep=0.25, scope=visual)", vision, deviation);
  EXPECT_EQ(visual[0].size(), 20u + 20u);
  for (int t = 0; t < 100; ++t) {
    const bool kept = std::binary_search(visual[1].begin(), visual[1].end(), t);
    EXPECT_EQ(kept, t < 10 || t >= 90 || (t >= 40 && t < 60)) << t;
  }
  // The tokens that must stay exceed the budget.
  EXPECT_EQ(Choose("flashcache(tokens=5, recent=30)", vision, deviation)[0].size(), 30u);
}

TEST(FlashCache, SegmentsFollowImagesAndCutOffsFollowGamma) {
  std::vector<uint8_t> vision(100);
  std::fill(vision.begin() + 10, vision.begin() + 30, 1);
  std::fill(vision.begin() + 30, vision.begin() + 50, 2);  // an image right after
  const PromptView prompt = {vision};
  const auto segments = [&](absl::string_view text) {
    std::vector<std::tuple<int, int, int>> out;
    for (const LowPassSegment& s : (*ParsePolicy(text))->needs().Segments(prompt)) {
      out.emplace_back(s.first, s.tokens, s.kept);
    }
    return out;
  };
  EXPECT_THAT(segments("flashcache"), ElementsAre(std::tuple(0, 100, 21)));
  EXPECT_THAT(segments("flashcache(gamma=0)"), ElementsAre(std::tuple(0, 100, 1)));
  EXPECT_THAT(segments("flashcache(gamma=1)"), ElementsAre(std::tuple(0, 100, 100)));
  EXPECT_THAT(segments("flashcache(segment=image, gamma=0.1)"),
              ElementsAre(std::tuple(0, 10, 2), std::tuple(10, 20, 3), std::tuple(30, 20, 3),
                          std::tuple(50, 50, 6)));
  EXPECT_TRUE(segments("akvq").empty());
}

TEST(SnapKv, KeepsTheWindowAndWhatItLooksAtWithItsNeighbours) {
  std::vector<float> votes(100, 0x1p-7f);  // sums are exact, so ties are ties
  votes[20] = 5;
  votes[60] = 4;
  const auto choose = [&](absl::string_view text, int tokens) {
    const std::vector<uint8_t> vision(tokens);
    const LayerStats layer = {.columns = absl::MakeConstSpan(votes).first(tokens)};
    return (*ParsePolicy(text))->Select(PromptView{vision}, {layer}, {1, 1, 64})[0];
  };
  // Seven tokens stay in addition to the window of three: five around the first peak, two of the
  // second's.
  const std::vector<int32_t> average = choose("snapkv(tokens=10, window=3)", 100);
  EXPECT_THAT(average, ElementsAre(18, 19, 20, 21, 22, 58, 59, 97, 98, 99));
  EXPECT_EQ(choose("snapkv(tokens=10, window=3, pool=max)", 100), average);
  // The average of two medium votes exceeds that of one large vote; the maximum does not.
  votes[19] = votes[21] = 0;
  votes[20] = 1;
  votes[60] = votes[61] = .8f;
  EXPECT_THAT(choose("snapkv(tokens=2, window=1, kernel=3)", 100), ElementsAre(60, 99));
  EXPECT_THAT(choose("snapkv(tokens=2, window=1, kernel=3, pool=max)", 100), ElementsAre(19, 99));
  EXPECT_THAT(choose("snapkv(tokens=2, window=1, kernel=1)", 100), ElementsAre(20, 99));
  // `keep` counts all kept tokens, the window included. A short prompt is not changed.
  EXPECT_EQ(choose("snapkv(keep=0.3)", 100).size(), 30u);
  EXPECT_EQ(choose("snapkv(tokens=64)", 50), AllOf(50));
  EXPECT_EQ(choose("snapkv(keep=1)", 100), AllOf(100));
  EXPECT_EQ(choose("snapkv(tokens=8, window=32)", 100).front(), 92);  // a window of the budget
  EXPECT_EQ((*ParsePolicy("snapkv(window=24)"))->needs().FirstToRun({std::vector<uint8_t>(100)}),
            76);
}

TEST(H2o, KeepsTheHeaviestOfTheOlderAndTheNewest) {
  std::vector<float> sums(100, 1);
  sums[3] = 9;
  sums[40] = 5;
  sums[41] = 7;
  sums[90] = .5f;
  const auto policy = [](absl::string_view text) { return *ParsePolicy(text); };
  const auto choose = [&](absl::string_view text, int tokens) {
    const std::vector<uint8_t> vision(tokens);
    const LayerStats layer = {.columns = absl::MakeConstSpan(sums).first(tokens)};
    return policy(text)->Select(PromptView{vision}, {layer}, {1, 1, 64})[0];
  };
  EXPECT_THAT(choose("h2o(tokens=6)", 100), ElementsAre(3, 40, 41, 97, 98, 99));
  EXPECT_THAT(choose("h2o(tokens=6, recent=0)", 100), ElementsAre(0, 1, 2, 3, 40, 41));
  EXPECT_THAT(choose("h2o(tokens=3, recent=1)", 100), ElementsAre(97, 98, 99));
  EXPECT_THAT(choose("h2o(tokens=4)", 42), ElementsAre(0, 3, 40, 41));  // recent ones count once
  EXPECT_EQ(choose("h2o", 100).size(), 20u);
  EXPECT_EQ(choose("h2o(keep=0.5)", 99).size(), 50u);
  EXPECT_EQ(choose("h2o", 40).size(), 16u);  // a page at least
  EXPECT_EQ(choose("h2o(tokens=64)", 50), AllOf(50));
  EXPECT_EQ(choose("h2o(keep=1)", 100), AllOf(100));
  // The same rule applies later to the tokens stored then.
  EXPECT_THAT(policy("h2o")->Keep({.1f, .5f, .2f, .5f, 0, .05f}, 3), ElementsAre(1, 4, 5));
  EXPECT_THAT(policy("h2o(recent=0.25)")->Keep({.1f, .5f, .2f, .6f, 0, .05f}, 4),
              ElementsAre(1, 2, 3, 5));
}

TEST(H2o, ReadsEveryRowAndFitsItsBytes) {
  const std::vector<uint8_t> vision(300);
  const PromptView prompt{vision};
  const auto h2o = *ParsePolicy("h2o(bytes=1000000)");
  EXPECT_EQ(h2o->needs().FirstToRun(prompt), 0);
  EXPECT_TRUE(h2o->needs().attention_steps);
  constexpr KvGeometry kGeometry = {4, 2, 64};  // a page is 8 KiB: 30 of them in every layer
  EXPECT_EQ(h2o->TokenLimit(prompt, kGeometry), 29 * 16);
  for (int outputs = 0; outputs < 1000; outputs += 7) {
    EXPECT_LE(h2o->SteadyBytes(prompt, outputs, kGeometry), 1000000);
  }
  EXPECT_GT(h2o->SteadyBytes(prompt, 300, kGeometry), 1000000 - 4 * 2 * 8192);
  EXPECT_EQ((*ParsePolicy("h2o(bytes=1000000000000000)"))->TokenLimit(prompt, kGeometry), 1 << 24);
  EXPECT_TRUE((*ParsePolicy("h2o(bytes=65536)"))->CheckGeometry(kGeometry).ok());
  EXPECT_EQ((*ParsePolicy("h2o(bytes=65535)"))->CheckGeometry(kGeometry).message(),
            "kv policy 'h2o(bytes=65535)': two pages in each of the model's 4 layers are the "
            "minimum; they take 65536 bytes");
}

}  // namespace
}  // namespace tessera
