// Compares the sampler with plain full sorts on random logits.
#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "engine/sampling/sampler.h"
#include "gtest/gtest.h"
#include "tests/engine/sampled.h"

namespace tessera {
namespace {

// Samples by the header's rules with full sorts.
int32_t NaiveSample(const SamplingParams& params, const std::vector<float>& logits, uint64_t seed,
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
    if (mass > UniformSample(seed, index) * total) return id;
  }
  return order.back();
}

TEST(Sampler, AgreesWithFullSortsOnRandomLogits) {
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
      ASSERT_EQ(testing::Sampled(Sampler(params, round, {}), &copy, index),
                NaiveSample(params, logits, round, index))
          << "k " << params.top_k << " p " << params.top_p << " min " << params.min_p;
    }
  }
}

}  // namespace
}  // namespace tessera
