#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "engine/softmax_weights.h"
#include "kernels/base.h"

namespace tessera {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

struct Candidate {
  float logit;
  int32_t id;
};
bool Before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// NaN becomes -infinity, +infinity the largest float; returns the largest logit. Eight at a time,
// without branches: it passes over every logit of every token.
float CleanAll(absl::Span<float> logits) {
  constexpr size_t kLanes = 8;
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, kMinusInfinity);
  const auto clean = [](float x) {
    x = x > kLargest ? kLargest : x;
    return x == x ? x : kMinusInfinity;
  };
  float* data = logits.data();
  const size_t n = logits.size();
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      const float x = clean(data[i + j]);
      data[i + j] = x;
      lanes[j] = x > lanes[j] ? x : lanes[j];
    }
  }
  for (; i < n; ++i) {
    data[i] = clean(data[i]);
    lanes[0] = std::max(lanes[0], data[i]);
  }
  return *std::max_element(lanes, lanes + kLanes);
}

// The first `k` candidates in Before's order, themselves in no order; impossible ones left out.
// One pass: whenever 2k have gathered, the worse half goes and the bar rises.
std::vector<Candidate> TopCandidates(absl::Span<const float> logits, size_t k) {
  std::vector<Candidate> best;
  if (k == 0) return best;
  k = std::min(k, logits.size());
  const size_t full = std::max<size_t>(2 * k, 64);
  best.reserve(std::min(full, logits.size()));
  const auto keep_best = [&best, k] {
    std::nth_element(best.begin(), best.begin() + (k - 1), best.end(), Before);
    best.resize(k);
  };
  float bar = kMinusInfinity;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > bar)) continue;  // an equal one has a higher id
    best.push_back({logits[i], static_cast<int32_t>(i)});
    if (best.size() < full) continue;
    keep_best();
    bar = best.back().logit;
  }
  if (best.size() > k) keep_best();
  return best;
}

// The last candidate, in Before's order, of the shortest beginning whose weights reach `target`.
// Halves the pool by nth_element towards the border instead of sorting it: linear on average.
Candidate LastOfMass(std::vector<Candidate>& pool, const double* weights, double target) {
  auto begin = pool.begin(), end = pool.end();
  double mass = 0;  // before `begin`
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
  return *(end - 1);  // rounding only
}

// The id in whose share of `weights` [n] the fraction `u` of their sum falls; never one of weight
// 0.
int32_t IdAtFraction(const double* weights, size_t n, double u) {
  constexpr size_t kBlock = 256;  // sums of blocks first, then inside one
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
  size_t drawn = n;  // rounding may leave mass below target: then the last one with weight
  for (size_t i = block * kBlock; i < n; ++i) {
    if (weights[i] == 0) continue;
    drawn = i;
    mass += weights[i];
    if (mass > target) return static_cast<int32_t>(i);
  }
  while (drawn == n || weights[drawn] == 0) --drawn;
  return static_cast<int32_t>(drawn);
}

uint64_t Mix(uint64_t x) {  // splitmix64's finalizer: every input bit reaches every output bit
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

int32_t LowestAllowed(int64_t vocab, absl::Span<const int32_t> banned,
                      absl::Span<const int32_t> also_banned) {
  std::vector<bool> allowed(vocab, true);
  for (absl::Span<const int32_t> ids : {banned, also_banned}) {
    for (int32_t id : ids) {
      if (id >= 0 && id < vocab) allowed[id] = false;
    }
  }
  const auto it = std::find(allowed.begin(), allowed.end(), true);
  return it == allowed.end() ? 0 : static_cast<int32_t>(it - allowed.begin());
}

}  // namespace

double UniformDraw(uint64_t seed, uint64_t index) {
  // The seed is mixed first, so that related seeds do not give shifted copies of one stream.
  constexpr uint64_t kStep = 0x9e3779b97f4a7c15u;
  const uint64_t bits = Mix(Mix(seed + kStep) + (index + 1) * kStep);
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

Sampler::Sampler(const SamplingParams& params, uint64_t seed, const std::vector<int32_t>* banned)
    : params_(params),
      seed_(seed),
      banned_(banned),
      penalties_(params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f ||
                 params.frequency_penalty != 0.0f) {}

void Sampler::AddPromptToken(int32_t id) {
  if (penalties_) counts_.try_emplace(id);
}

void Sampler::AddOutputToken(int32_t id) {
  if (penalties_) ++counts_[id];
}

void Sampler::ApplyPenalties(absl::Span<float> logits) const {
  for (const auto& [id, times] : counts_) {
    if (id < 0 || id >= static_cast<int64_t>(logits.size())) continue;
    float& logit = logits[id];
    logit = logit > 0 ? logit / params_.repetition_penalty : logit * params_.repetition_penalty;
    if (times == 0) continue;
    logit -= params_.presence_penalty;
    logit -= params_.frequency_penalty * static_cast<float>(times);
  }
}

int32_t Sampler::Sample(absl::Span<float> logits, absl::Span<const int32_t> also_banned,
                        int index) {
  TESSERA_CHECK(!logits.empty());
  const int64_t vocab = static_cast<int64_t>(logits.size());
  for (const auto& [id, bias] : params_.logit_bias) {
    if (id >= 0 && id < vocab) logits[id] += bias;
  }
  ApplyPenalties(logits);
  for (absl::Span<const int32_t> ids : {absl::MakeConstSpan(*banned_), also_banned}) {
    for (int32_t id : ids) {
      if (id >= 0 && id < vocab) logits[id] = kMinusInfinity;
    }
  }
  const float largest = CleanAll(logits);
  if (largest == kMinusInfinity) return LowestAllowed(vocab, *banned_, also_banned);
  if (params_.temperature == 0.0f) {
    return static_cast<int32_t>(std::find(logits.begin(), logits.end(), largest) - logits.begin());
  }
  return Draw(logits, largest, index);
}

int32_t Sampler::Draw(absl::Span<const float> logits, float largest, int index) const {
  const size_t vocab = logits.size();
  const auto weights = std::make_unique_for_overwrite<double[]>(vocab);  // 0: not kept
  std::vector<Candidate> pool;
  const bool top_k = params_.top_k > 0 && static_cast<size_t>(params_.top_k) < vocab;
  if (top_k) {
    pool = TopCandidates(logits, params_.top_k);
    std::fill_n(weights.get(), vocab, 0.0);
    for (const Candidate& c : pool) {
      SoftmaxWeights({&c.logit, 1}, largest, params_.temperature, &weights[c.id]);
    }
  } else {
    SoftmaxWeights(logits, largest, params_.temperature, weights.get());
  }
  if (params_.top_p < 1.0f) {
    const double total = SumOf(weights.get(), vocab), share = params_.top_p;
    if (!top_k) {
      // All tokens at or below this weight together hold no more than what top-p may drop.
      const double negligible = (1 - share) * total / static_cast<double>(vocab);
      for (size_t i = 0; i < vocab; ++i) {
        if (weights[i] > negligible) pool.push_back({logits[i], static_cast<int32_t>(i)});
      }
    }
    const Candidate last = LastOfMass(pool, weights.get(), share * total);
    for (size_t i = 0; i < vocab; ++i) {
      if (Before(last, {logits[i], static_cast<int32_t>(i)})) weights[i] = 0;
    }
  }
  const double least = params_.min_p;
  if (least > 0) {
    for (size_t i = 0; i < vocab; ++i) weights[i] = weights[i] < least ? 0 : weights[i];
  }
  return IdAtFraction(weights.get(), vocab, UniformDraw(seed_, static_cast<uint64_t>(index)));
}

TokenLogprob ComputeLogprob(absl::Span<const float> logits, int32_t id, int top) {
  TESSERA_CHECK(id >= 0 && id < static_cast<int64_t>(logits.size()));
  std::vector<float> clean(logits.begin(), logits.end());
  const float largest = CleanAll(absl::MakeSpan(clean));
  double log_sum = HUGE_VAL;  // nothing is possible
  if (largest > kMinusInfinity) {
    const auto weights = std::make_unique_for_overwrite<double[]>(clean.size());
    SoftmaxWeights(clean, largest, /*temperature=*/1.0, weights.get());
    log_sum = double{largest} + std::log(SumOf(weights.get(), clean.size()));
  }
  const auto logprob = [log_sum](float logit) {
    const double value = double{logit} - log_sum;
    return static_cast<float>(std::max(value, double{std::numeric_limits<float>::lowest()}));
  };
  TokenLogprob result;
  result.id = id;
  result.logprob = logprob(clean[id]);
  if (top <= 0) return result;
  std::vector<Candidate> best = TopCandidates(clean, top);
  std::sort(best.begin(), best.end(), Before);
  for (const Candidate& c : best) result.top.emplace_back(c.id, logprob(c.logit));
  return result;
}

}  // namespace tessera
