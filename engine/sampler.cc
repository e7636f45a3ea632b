#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "kernels/base.h"
#include "kernels/draw.h"
#include "kernels/softmax_weights.h"

namespace tessera {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

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

DrawRule Sampler::RuleAt(int index) const {
  return {params_.temperature, params_.top_k, params_.top_p, params_.min_p,
          UniformDraw(seed_, static_cast<uint64_t>(index))};
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
  const float largest = CleanLogits(logits);
  if (largest == kMinusInfinity) return LowestAllowed(vocab, *banned_, also_banned);
  if (params_.temperature == 0.0f) {
    return static_cast<int32_t>(std::find(logits.begin(), logits.end(), largest) - logits.begin());
  }
  return DrawToken(logits, largest, RuleAt(index));
}

TokenLogprob ComputeLogprob(absl::Span<const float> logits, int32_t id, int top) {
  TESSERA_CHECK(id >= 0 && id < static_cast<int64_t>(logits.size()));
  std::vector<float> clean(logits.begin(), logits.end());
  const float largest = CleanLogits(absl::MakeSpan(clean));
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
  std::vector<LogitAt> best = TopLogits(clean, top);
  std::sort(best.begin(), best.end(), Before);
  for (const LogitAt& c : best) result.top.emplace_back(c.id, logprob(c.logit));
  return result;
}

}  // namespace tessera
