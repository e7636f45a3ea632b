#include "kernels/host/sample.h"

#include <algorithm>
#include <limits>
#include <memory>

#include "kernels/host/logits.h"
#include "kernels/host/softmax_weights.h"

namespace tessera {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

// Returns the first id with the largest logit among those that are not banned; 0 if all are banned.
int32_t FirstLargest(const float* logits, int64_t cols, const uint8_t* banned) {
  int64_t best = -1;
  float most = 0;
  for (int64_t c = 0; c < cols; ++c) {
    if (banned[c] != 0) continue;
    const float x = logits[c] == logits[c] ? std::min(logits[c], kLargest) : kMinusInfinity;
    if (best >= 0 && !(x > most)) continue;
    best = c;
    most = x;
  }
  return static_cast<int32_t>(std::max<int64_t>(best, 0));
}

// Returns the last candidate of the shortest prefix, in Before's order, whose weights reach
// `target`. Halves the pool by nth_element towards the border instead of sorting it: linear time on
// average.
LogitAt LastOfMass(std::vector<LogitAt>& pool, const double* weights, double target) {
  auto begin = pool.begin(), end = pool.end();
  double mass = 0;  // of the candidates before `begin`
  while (end - begin > 64) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, Before);
    double half = 0;
    for (auto c = begin; c != middle; ++c) half += weights[c->id];
    if (mass + half >= target) {
      end = middle;
    } else {
      mass += half;
      begin = middle;
    }
  }
  std::sort(begin, end, Before);
  for (auto c = begin; c != end; ++c) {
    mass += weights[c->id];
    if (mass >= target) return *c;
  }
  return *(end - 1);  // reached only through rounding
}

// Returns the id whose share of `weights` [n] contains the fraction `u` of their sum. Never returns
// an id of weight 0.
int32_t IdAtFraction(const double* weights, size_t n, double u) {
  constexpr size_t kBlock = 256;  // first find the block by sums, then search inside it
  std::vector<double> sums;
  double total = 0;
  for (size_t begin = 0; begin < n; begin += kBlock) {
    sums.push_back(SumOf(weights + begin, std::min(kBlock, n - begin)));
    total += sums.back();
  }
  const double target = u * total;
  double mass = 0;
  size_t block = 0;
  while (block + 1 < sums.size() && mass + sums[block] <= target) mass += sums[block++];
  size_t sampled = n;  // if rounding leaves mass below target: the last id with a weight
  for (size_t i = block * kBlock; i < n; ++i) {
    if (weights[i] == 0) continue;
    sampled = i;
    mass += weights[i];
    if (mass > target) return static_cast<int32_t>(i);
  }
  while (sampled == n || weights[sampled] == 0) --sampled;
  return static_cast<int32_t>(sampled);
}

// Samples a token by `rule`, whose temperature is above 0. The logits are clean and the largest is
// finite. Probabilities are in double.
int32_t SampleToken(absl::Span<const float> logits, float largest, const SampleRule& rule) {
  const size_t vocab = logits.size();
  const auto weights = std::make_unique_for_overwrite<double[]>(vocab);  // 0: filtered out
  std::vector<LogitAt> pool;
  const bool top_k = rule.top_k > 0 && static_cast<size_t>(rule.top_k) < vocab;
  if (top_k) {
    pool = TopLogits(logits, rule.top_k);
    std::fill_n(weights.get(), vocab, 0.0);
    for (const LogitAt& c : pool) {
      SoftmaxWeights({&c.logit, 1}, largest, rule.temperature, &weights[c.id]);
    }
  } else {
    SoftmaxWeights(logits, largest, rule.temperature, weights.get());
  }
  if (rule.top_p < 1.0f) {
    const double total = SumOf(weights.get(), vocab), share = rule.top_p;
    if (!top_k) {
      // All tokens at or below this weight together have no more mass than top-p may drop.
      const double negligible = (1 - share) * total / static_cast<double>(vocab);
      for (size_t i = 0; i < vocab; ++i) {
        if (weights[i] > negligible) pool.push_back({logits[i], static_cast<int32_t>(i)});
      }
    }
    const LogitAt last = LastOfMass(pool, weights.get(), share * total);
    for (size_t i = 0; i < vocab; ++i) {
      if (Before(last, {logits[i], static_cast<int32_t>(i)})) weights[i] = 0;
    }
  }
  const double least = rule.min_p;
  if (least > 0) {
    for (size_t i = 0; i < vocab; ++i) weights[i] = weights[i] < least ? 0 : weights[i];
  }
  return IdAtFraction(weights.get(), vocab, rule.uniform);
}

}  // namespace

int32_t SampleRow(const float* logits, int64_t cols, const uint8_t* banned,
                  const SampleRule* rule) {
  const int32_t first = FirstLargest(logits, cols, banned);
  if (rule == nullptr || rule->temperature == 0) return first;
  std::vector<float> allowed(logits, logits + cols);
  for (int64_t c = 0; c < cols; ++c) {
    if (banned[c] != 0) allowed[c] = kMinusInfinity;
  }
  const float largest = CleanLogits(absl::MakeSpan(allowed));
  return largest == kMinusInfinity ? first : SampleToken(allowed, largest, *rule);
}

}  // namespace tessera
