#include "engine/sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/sampled.h"

namespace tessera {
namespace {

using testing::Sampled;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
const std::vector<int32_t> kNothing;

SamplingParams At(float temperature) {
  SamplingParams params;
  params.temperature = temperature;
  return params;
}
int32_t SampleOnce(const SamplingParams& params, std::vector<float> logits, int index = 0,
                   uint64_t seed = 1, const std::vector<int32_t>& banned = kNothing,
                   const std::vector<int32_t>& ends = kNothing) {
  return Sampled(Sampler(params, seed, ends), &logits, index, banned, !ends.empty());
}
std::map<int32_t, int> Histogram(const SamplingParams& params, const std::vector<float>& logits,
                                 int draws, const std::vector<int32_t>& banned = kNothing) {
  std::map<int32_t, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[SampleOnce(params, logits, i, 42, banned)];
  return counts;
}
std::set<int32_t> Support(const SamplingParams& params, const std::vector<float>& logits) {
  std::set<int32_t> ids;
  for (const auto& [id, count] : Histogram(params, logits, 4000)) ids.insert(id);
  return ids;
}
std::vector<float> LogOf(std::vector<double> probabilities) {
  std::vector<float> logits;
  for (double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

// Returns the value that a chi-square variable of `df` degrees exceeds with probability 1e-6
// (Wilson-Hilferty).
double ChiSquareLimit(int df) {
  const double z = 4.753, a = 2.0 / (9.0 * df);
  return df * std::pow(1 - a + z * std::sqrt(a), 3);
}
void ExpectDistribution(const std::map<int32_t, int>& counts, const std::vector<double>& expected) {
  int draws = 0, bins = 0;
  for (const auto& [id, count] : counts) draws += count;
  double statistic = 0;
  for (size_t id = 0; id < expected.size(); ++id) {
    const auto it = counts.find(static_cast<int32_t>(id));
    const double seen = it == counts.end() ? 0 : it->second;
    if (expected[id] == 0) {
      EXPECT_EQ(seen, 0) << id;
      continue;
    }
    statistic += std::pow(seen - draws * expected[id], 2) / (draws * expected[id]);
    ++bins;
  }
  EXPECT_LT(statistic, ChiSquareLimit(bins - 1));
}

TEST(UniformSample, IsUniformOverIndicesAndOverSeeds) {
  for (bool over_seeds : {false, true}) {
    std::map<int32_t, int> bins, pairs;
    double previous = 0.5;
    for (int i = 0; i < 100000; ++i) {
      const double u = over_seeds ? UniformSample(i, 0) : UniformSample(7, i);
      ASSERT_GE(u, 0.0);
      ASSERT_LT(u, 1.0);
      ++bins[static_cast<int32_t>(u * 100)];
      ++pairs[static_cast<int32_t>(previous * 10) * 10 + static_cast<int32_t>(u * 10)];
      previous = u;
    }
    ExpectDistribution(bins, std::vector<double>(100, 0.01));
    ExpectDistribution(pairs, std::vector<double>(100, 0.01));  // samples are independent
  }
}

TEST(Sampler, GreedyTakesTheLargestThenTheLowestId) {
  EXPECT_EQ(SampleOnce(At(0), {1, 3, 2}), 1);
  EXPECT_EQ(SampleOnce(At(0), {1, 3, 3, 3}), 1);
  EXPECT_EQ(SampleOnce(At(0), {-5, -4}), 1);
  EXPECT_EQ(SampleOnce(At(0), {0}), 0);
}

TEST(Sampler, DrawsFromTheSoftmax) {
  const std::vector<double> p = {0.4, 0.25, 0.2, 0.1, 0.04, 0.01};
  ExpectDistribution(Histogram(At(1), LogOf(p), 50000), p);
  std::vector<double> cold, hot;
  double cold_sum = 0, hot_sum = 0;
  for (double x : p) cold_sum += x * x, hot_sum += std::sqrt(x);
  for (double x : p) cold.push_back(x * x / cold_sum), hot.push_back(std::sqrt(x) / hot_sum);
  ExpectDistribution(Histogram(At(0.5f), LogOf(p), 50000), cold);
  ExpectDistribution(Histogram(At(2), LogOf(p), 50000), hot);
}

TEST(Sampler, FilteredDrawsAreRenormalised) {
  SamplingParams params = At(1);
  params.top_k = 3;
  const double sum = 0.4 + 0.25 + 0.2;
  ExpectDistribution(Histogram(params, LogOf({0.1, 0.4, 0.04, 0.25, 0.01, 0.2}), 50000),
                     {0, 0.4 / sum, 0, 0.25 / sum, 0, 0.2 / sum});
}

TEST(Sampler, EachFilterKeepsExactlyItsSet) {
  const std::vector<float> logits = LogOf({0.1, 0.4, 0.3, 0.15, 0.05});
  SamplingParams params = At(1);
  EXPECT_EQ(Support(params, logits), (std::set<int32_t>{0, 1, 2, 3, 4}));
  for (const auto& [k, ids] : std::map<int, std::set<int32_t>>{
           {1, {1}}, {2, {1, 2}}, {3, {1, 2, 3}}, {5, {0, 1, 2, 3, 4}}, {99, {0, 1, 2, 3, 4}}}) {
    params = At(1);
    params.top_k = k;
    EXPECT_EQ(Support(params, logits), ids) << k;
  }
  for (const auto& [p, ids] : std::map<float, std::set<int32_t>>{{1e-9f, {1}},
                                                                 {0.39f, {1}},
                                                                 {0.41f, {1, 2}},
                                                                 {0.69f, {1, 2}},
                                                                 {0.71f, {1, 2, 3}},
                                                                 {0.9f, {0, 1, 2, 3}},
                                                                 {0.97f, {0, 1, 2, 3, 4}}}) {
    params = At(1);
    params.top_p = p;
    EXPECT_EQ(Support(params, logits), ids) << p;
  }
  for (const auto& [p, ids] : std::map<float, std::set<int32_t>>{{0.99f, {1}},
                                                                 {0.74f, {1, 2}},
                                                                 {0.37f, {1, 2, 3}},
                                                                 {0.24f, {0, 1, 2, 3}},
                                                                 {0.12f, {0, 1, 2, 3, 4}}}) {
    params = At(1);
    params.min_p = p;
    EXPECT_EQ(Support(params, logits), ids) << p;
  }
}

TEST(Sampler, TiesAtABorderGoToTheLowestIds) {
  SamplingParams params = At(1);
  params.top_k = 2;
  EXPECT_EQ(Support(params, {0, 1, 1, 1}), (std::set<int32_t>{1, 2}));
  params = At(1);
  params.top_p = 0.5f;
  EXPECT_EQ(Support(params, {1, 1, 1, 1}), (std::set<int32_t>{0, 1}));
}

TEST(Sampler, TheOrderOfTheFilters) {
  const std::vector<float> logits = LogOf({0.4, 0.3, 0.2, 0.1});
  SamplingParams params = At(1);
  params.top_k = 2;
  params.top_p = 0.55f;  // after top-k (.571, .429) it keeps one; before top-k it would keep two
  EXPECT_EQ(Support(params, logits), (std::set<int32_t>{0}));
  params = At(1);
  params.top_p = 0.5f;  // keeps two; after min-p (.571, .429) it would keep one
  params.min_p = 0.6f;
  EXPECT_EQ(Support(params, logits), (std::set<int32_t>{0, 1}));
  params = At(2);  // temperature comes before top-p and min-p: .325 .282 .230 .163
  params.top_p = 0.6f;
  EXPECT_EQ(Support(params, logits), (std::set<int32_t>{0, 1}));
  params = At(2);
  params.min_p = 0.6f;  // ratios 1 .866 .707 .5
  EXPECT_EQ(Support(params, logits), (std::set<int32_t>{0, 1, 2}));
}

TEST(Sampler, PenaltiesFollowTheirFormulae) {
  SamplingParams params = At(0);
  params.repetition_penalty = 2;
  params.presence_penalty = 0.5f;
  params.frequency_penalty = 0.25f;
  Sampler sampler(params, 1, kNothing);
  sampler.AddPromptToken(0);
  sampler.AddPromptToken(1);
  sampler.AddPromptToken(1);
  sampler.AddOutputToken(2);
  for (int i = 0; i < 3; ++i) sampler.AddOutputToken(3);
  sampler.AddPromptToken(3);
  sampler.AddOutputToken(1000);  // outside the vocabulary
  std::vector<float> logits = {4, -4, 4, -4, 4};
  EXPECT_EQ(Sampled(sampler, &logits, 0), 4);
  EXPECT_THAT(logits, ::testing::ElementsAre(2, -8, 2 - 0.5f - 0.25f, -8 - 0.5f - 3 * 0.25f, 4));
}

// A row is edited the same before and after its newest token is known.
TEST(Sampler, AnAwaitedTokenCounts) {
  SamplingParams params = At(0);
  params.repetition_penalty = 1.5f;
  params.presence_penalty = 0.5f;
  params.frequency_penalty = 0.25f;
  for (const int32_t id : {0, 2, 3}) {  // in the prompt, in the output, in neither
    Sampler known(params, 1, kNothing), awaiting(params, 1, kNothing);
    for (Sampler* sampler : {&known, &awaiting}) {
      sampler->AddPromptToken(0);
      sampler->AddOutputToken(2);
    }
    known.AddOutputToken(id);
    std::vector<float> a = {4, -4, 4, -4, 4}, b = a;
    EXPECT_EQ(Sampled(known, &a, 0), Sampled(awaiting, &b, 0, kNothing, false, id));
    EXPECT_EQ(a, b);
    EXPECT_NE(b[id], id == 3 ? -4 : 4);
  }
}

TEST(Sampler, AnEditNamesAnIdOnce) {
  SamplingParams params = At(0);
  params.logit_bias = {{1, 2.0f}, {3, 1.0f}, {1, 3.0f}};
  const Sampler sampler(params, 1, {3, 4, 3});
  std::vector<float> logits = {1, 0, 0, 0, 9};
  EXPECT_EQ(Sampled(sampler, &logits, 0, kNothing, true), 1);
  EXPECT_THAT(logits, ::testing::ElementsAre(1, 5, 0, -kInfinity, -kInfinity));
  logits = {1, 0, 0, 0, 9};
  EXPECT_EQ(Sampled(sampler, &logits, 0), 4);
  EXPECT_THAT(logits, ::testing::ElementsAre(1, 5, 0, 1, 9));
  LogitEdits edits;
  Sampler(At(1), 1, {3}).AddEdit(0, false, 5, &edits);
  EXPECT_TRUE(edits.rows.empty());  // the request asks for no edit
}

TEST(Sampler, PenaltiesComeBeforeTemperature) {
  SamplingParams params = At(2);
  params.presence_penalty = 2;
  Sampler sampler(params, 42, kNothing);
  sampler.AddOutputToken(0);
  std::map<int32_t, int> counts;
  for (int i = 0; i < 50000; ++i) {
    std::vector<float> logits = {0, 0};
    ++counts[Sampled(sampler, &logits, i)];
  }
  const double p = 1 / (1 + std::exp(1.0));  // a difference of 2 at temperature 2
  ExpectDistribution(counts, {p, 1 - p});
}

TEST(Sampler, BannedIdsAreNeverDrawn) {
  const std::vector<float> logits = {5, 4, 3, 2};
  EXPECT_EQ(SampleOnce(At(0), logits, 0, 1, {0, -7, 99}, {1}), 2);
  const auto counts = Histogram(At(100), logits, 2000, {0, 2});
  EXPECT_EQ(counts.size(), 2u);
  EXPECT_EQ(counts.count(0) + counts.count(2), 0u);
}

TEST(Sampler, TheDrawDependsOnSeedAndIndexOnly) {
  std::mt19937 random(5);
  std::vector<float> logits(300);
  for (float& x : logits) x = static_cast<float>(random() % 1000) / 200.0f;
  const Sampler forward(At(1), 9, kNothing), backward(At(1), 9, kNothing);
  std::vector<int32_t> a(64), b(64);
  const auto draw = [&](const Sampler& sampler, int index) {
    std::vector<float> copy = logits;
    return Sampled(sampler, &copy, index);
  };
  for (int i = 0; i < 64; ++i) a[i] = draw(forward, i);
  for (int i = 64; i-- > 0;) b[i] = draw(backward, i);
  EXPECT_EQ(a, b);
  int same = 0;
  for (int i = 0; i < 64; ++i) same += SampleOnce(At(1), logits, i, 10) == a[i];
  EXPECT_LT(same, 16);
}

TEST(Sampler, BrokenLogitsNeverLeaveTheRange) {
  const std::vector<std::vector<float>> broken = {
      {kNan, kNan, kNan},        {-kInfinity, -kInfinity, -kInfinity}, {kNan, 1, kNan},
      {kInfinity, 1, kInfinity}, {-kInfinity, kNan, kInfinity},        {3e38f, -3e38f, kNan}};
  for (float temperature : {0.0f, 1e-40f, 0.7f, 100.0f}) {
    for (int filters = 0; filters < 8; ++filters) {
      SamplingParams params = At(temperature);
      if (filters & 1) params.top_k = 2;
      if (filters & 2) params.top_p = 0.5f;
      if (filters & 4) params.min_p = 0.5f;
      params.repetition_penalty = 1e-38f;
      for (const auto& logits : broken) {
        Sampler sampler(params, 3, kNothing);
        for (int32_t id : {0, 1, 2}) sampler.AddOutputToken(id);
        for (int index = 0; index < 20; ++index) {
          std::vector<float> copy = logits;
          const int32_t id = Sampled(sampler, &copy, index);
          ASSERT_GE(id, 0);
          ASSERT_LT(id, 3);
        }
      }
    }
    EXPECT_EQ(SampleOnce(At(temperature), {kNan, 1, -kInfinity}), 1);
    EXPECT_EQ(SampleOnce(At(temperature), {1, kInfinity, kNan}), 1);
    EXPECT_EQ(SampleOnce(At(temperature), {kNan, kNan, kNan}, 0, 1, {0}), 1);
    EXPECT_EQ(SampleOnce(At(temperature), {1, 2, 3}, 0, 1, {0, 1, 2}), 0);
    EXPECT_EQ(SampleOnce(At(temperature), {1, 2, 3}, 0, 1, {0, 2}, {1}), 1);  // a stop id is left
  }
}

}  // namespace
}  // namespace tessera
