#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

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

float Clean(float logit) {
  if (logit <= kLargest) return logit;
  return std::isnan(logit) ? kMinusInfinity : kLargest;
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
    if (!(logits[i] > bar)) continue;  // NaN too; an equal one has a higher id
    best.push_back({logits[i], static_cast<int32_t>(i)});
    if (best.size() < full) continue;
    keep_best();
    bar = best.back().logit;
  }
  if (best.size() > k) keep_best();
  return best;
}

// Weights relative to the most probable token, which has 1.
class Softmax {
 public:
  Softmax(float largest, float temperature) : largest_(largest), temperature_(temperature) {}
  double Weight(float logit) const { return std::exp((logit - largest_) / temperature_); }

 private:
  double largest_, temperature_;
};

// The last candidate, in Before's order, of the shortest beginning that holds `share` of the pool's
// mass. Sorts no more than it needs: ever larger parts, each split off by nth_element.
Candidate LastOfMass(std::vector<Candidate>& pool, const Softmax& softmax, double share) {
  double total = 0;
  for (const Candidate& c : pool) total += softmax.Weight(c.logit);
  double mass = 0;
  auto part = pool.begin();
  for (size_t size = 64; part != pool.end(); size *= 4) {
    const auto end = part + std::min<size_t>(size, pool.end() - part);
    if (end != pool.end()) std::nth_element(part, end, pool.end(), Before);
    std::sort(part, end, Before);
    for (; part != end; ++part) {
      mass += softmax.Weight(part->logit);
      if (mass >= share * total) return *part;
    }
  }
  return pool.back();
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
  ApplyPenalties(logits);
  for (absl::Span<const int32_t> ids : {absl::MakeConstSpan(*banned_), also_banned}) {
    for (int32_t id : ids) {
      if (id >= 0 && id < vocab) logits[id] = kMinusInfinity;
    }
  }
  int32_t best = -1;
  float largest = kMinusInfinity;
  for (int64_t i = 0; i < vocab; ++i) {
    if (!(logits[i] <= kLargest)) logits[i] = Clean(logits[i]);
    if (logits[i] > largest) {
      largest = logits[i];
      best = static_cast<int32_t>(i);
    }
  }
  if (best < 0) return LowestAllowed(vocab, *banned_, also_banned);
  return params_.temperature == 0.0f ? best : Draw(logits, largest, index);
}

int32_t Sampler::Draw(absl::Span<const float> logits, float largest, int index) const {
  const Softmax softmax(largest, params_.temperature);
  // Top-k and top-p each keep a beginning of Before's order: its last member says all.
  Candidate last = {std::numeric_limits<float>::lowest(), std::numeric_limits<int32_t>::max()};
  const bool top_k = params_.top_k > 0 && params_.top_k < static_cast<int64_t>(logits.size());
  if (top_k || params_.top_p < 1.0f) {
    std::vector<Candidate> pool = TopCandidates(logits, top_k ? params_.top_k : logits.size());
    if (params_.top_p < 1.0f) {
      last = LastOfMass(pool, softmax, params_.top_p);
    } else {
      last = *std::max_element(pool.begin(), pool.end(), Before);
    }
  }
  struct Kept {
    int32_t id;
    double weight;
  };
  std::vector<Kept> kept;  // by id
  double total = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const Candidate candidate = {logits[i], static_cast<int32_t>(i)};
    if (candidate.logit < last.logit || Before(last, candidate)) continue;
    const double weight = softmax.Weight(candidate.logit);
    if (weight < params_.min_p) continue;
    kept.push_back({candidate.id, weight});
    total += weight;
  }
  const double target = UniformDraw(seed_, static_cast<uint64_t>(index)) * total;
  double mass = 0;
  const Kept* drawn = nullptr;  // the last with weight, should rounding leave mass below target
  for (const Kept& k : kept) {
    if (k.weight == 0) continue;
    drawn = &k;
    if ((mass += k.weight) > target) break;
  }
  return drawn->id;
}

TokenLogprob ComputeLogprob(absl::Span<const float> logits, int32_t id, int top) {
  TESSERA_CHECK(id >= 0 && id < static_cast<int64_t>(logits.size()));
  float largest = kMinusInfinity;
  for (float logit : logits) largest = std::max(largest, Clean(logit));
  double sum = 0;
  if (largest > kMinusInfinity) {
    for (float logit : logits) sum += std::exp(double{Clean(logit)} - double{largest});
  }
  const double log_sum = double{largest} + std::log(sum);
  const auto logprob = [log_sum, sum](float logit) {
    const double value = sum > 0 ? double{Clean(logit)} - log_sum : -HUGE_VAL;
    return static_cast<float>(std::max(value, double{std::numeric_limits<float>::lowest()}));
  };
  TokenLogprob result;
  result.id = id;
  result.logprob = logprob(logits[id]);
  if (top <= 0) return result;
  std::vector<Candidate> best = TopCandidates(logits, top);
  std::sort(best.begin(), best.end(), Before);
  for (const Candidate& c : best) result.top.emplace_back(c.id, logprob(c.logit));
  return result;
}

}  // namespace tessera
