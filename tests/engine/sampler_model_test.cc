// The sampler and its log-probabilities on random logits, against plain full sorts.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "engine/sampler.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

// The header's rules by full sorts.
int32_t NaiveDraw(const SamplingParams& params, const std::vector<float>& logits, uint64_t seed,
                  int index) {
  std::vector<int32_t> order(logits.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  const double largest = logits[order[0]];
  const auto weight = [&](int32_t id) {
    return std::exp((logits[id] - largest) / params.temperature);
  };
  if (params.top_k > 0 && params.top_k < static_cast<int>(order.size())) order.resize(params.top_k);
  if (params.top_p < 1) {
    double total = 0, mass = 0;
    for (int32_t id : order) total += weight(id);
    size_t kept = 0;
    while (kept < order.size() && mass < params.top_p * total) mass += weight(order[kept++]);
    order.resize(std::max<size_t>(kept, 1));
  }
  order.erase(std::remove_if(order.begin(), order.end(),
                             [&](int32_t id) { return weight(id) < params.min_p; }),
              order.end());
  std::sort(order.begin(), order.end());
  double total = 0, mass = 0;
  for (int32_t id : order) total += weight(id);
  for (int32_t id : order) {
    mass += weight(id);
    if (mass > UniformDraw(seed, index) * total) return id;
  }
  return order.back();
}

TEST(Sampler, AgreesWithFullSortsOnRandomLogits) {
  const std::vector<int32_t> nothing;
  std::mt19937 random(17);
  const auto uniform = [&random] { return static_cast<float>(random()) * 0x1p-32f; };
  for (int round = 0; round < 600; ++round) {
    std::vector<float> logits(1 + random() % 3000);
    const bool ties = random() % 2 == 0;
    for (float& x : logits) {
      x = 12 * (uniform() + uniform() + uniform()) - 18;
      if (ties) x = std::round(x * 4) / 4;
    }
    SamplingParams params;
    params.temperature = 0.05f + 2 * uniform();
    if (random() % 2 == 0) params.top_k = 1 + static_cast<int>(random() % (logits.size() + 5));
    if (random() % 2 == 0) params.top_p = 1e-4f + 0.999f * uniform();
    if (random() % 3 == 0) params.min_p = 0.2f * uniform();
    for (int index = 0; index < 5; ++index) {
      std::vector<float> copy = logits;
      Sampler sampler(params, round, &nothing);
      ASSERT_EQ(sampler.Sample(absl::MakeSpan(copy), {}, index),
                NaiveDraw(params, logits, round, index))
          << "k " << params.top_k << " p " << params.top_p << " min " << params.min_p;
    }
  }
}

TEST(ComputeLogprob, IsLogSoftmaxInDouble) {
  std::mt19937 random(23);
  for (int round = 0; round < 200; ++round) {
    std::vector<float> logits(1 + random() % 700);
    for (float& x : logits) x = static_cast<float>(random() % 4001) / 100.0f - 20;
    long double sum = 0;
    for (float x : logits) sum += std::exp(static_cast<long double>(x));
    const auto exact = [&](int32_t id) { return static_cast<double>(logits[id] - std::log(sum)); };
    const int32_t id = static_cast<int32_t>(random() % logits.size());
    const int top = static_cast<int>(random() % 25);
    const TokenLogprob result = ComputeLogprob(logits, id, top);
    // One rounding to float, and the double sum's error, which is far below it.
    const auto tolerance = [](double value) {
      return std::fabs(value) * std::numeric_limits<float>::epsilon() + 1e-12;
    };
    EXPECT_EQ(result.id, id);
    EXPECT_NEAR(result.logprob, exact(id), tolerance(exact(id)));
    std::vector<int32_t> order(logits.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
    ASSERT_EQ(result.top.size(), std::min<size_t>(top, logits.size()));
    for (size_t i = 0; i < result.top.size(); ++i) {
      EXPECT_EQ(result.top[i].first, order[i]);
      EXPECT_NEAR(result.top[i].second, exact(order[i]), tolerance(exact(order[i])));
    }
  }
}

TEST(ComputeLogprob, StaysFiniteOnBrokenLogits) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float lowest = std::numeric_limits<float>::lowest();
  TokenLogprob result = ComputeLogprob(std::vector<float>{kNan, 0, -kInfinity, 0}, 2, 4);
  EXPECT_EQ(result.logprob, lowest);
  EXPECT_EQ(result.top.size(), 2u);
  EXPECT_FLOAT_EQ(result.top[0].second, static_cast<float>(-std::log(2.0)));
  result = ComputeLogprob(std::vector<float>{kNan, kNan}, 0, 2);
  EXPECT_EQ(result.logprob, lowest);
  EXPECT_TRUE(result.top.empty());
  result = ComputeLogprob(std::vector<float>{kInfinity, 0}, 0, 2);
  EXPECT_EQ(result.logprob, 0);
  EXPECT_EQ(result.top[1].second, lowest);
}

}  // namespace
}  // namespace tessera
