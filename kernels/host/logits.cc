#include "kernels/host/logits.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "base/base.h"
#include "kernels/host/softmax_weights.h"

namespace tessera {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

}  // namespace

bool Before(const LogitAt& a, const LogitAt& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// Works on eight at a time without branches, because it passes over every logit of every token.
float CleanLogits(absl::Span<float> logits) {
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

// Makes one pass. Whenever 2k candidates have gathered, drops the worse half and raises the bar.
std::vector<LogitAt> TopLogits(absl::Span<const float> logits, size_t k) {
  std::vector<LogitAt> best;
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

void EditRow(const LogitEdit& edit, const LogitBias* biases, const TokenCount* counts,
             const int32_t* sampled, float* row, int64_t cols) {
  for (const LogitBias& b : absl::MakeConstSpan(biases + edit.first_bias, edit.biases)) {
    if (b.id >= 0 && b.id < cols) row[b.id] += b.bias;
  }
  const auto penalise = [&](int32_t id, int32_t times) {
    if (id < 0 || id >= cols) return;
    float& logit = row[id];
    logit = logit > 0 ? logit / edit.repetition : logit * edit.repetition;
    if (times == 0) return;
    logit -= edit.presence;
    logit -= edit.frequency * static_cast<float>(times);
  };
  int32_t awaited = edit.awaited >= 0 ? sampled[edit.awaited] : -1;
  for (const TokenCount& c : absl::MakeConstSpan(counts + edit.first_count, edit.counts)) {
    const bool again = c.id == awaited;
    penalise(c.id, c.times + (again ? 1 : 0));
    if (again) awaited = -1;
  }
  penalise(awaited, 1);
}

void LogprobsOfRow(const float* row, int64_t cols, int32_t id, int top, LogprobAt* out) {
  TESSERA_CHECK(id >= 0 && id < cols);
  std::vector<float> clean(row, row + cols);
  const float largest = CleanLogits(absl::MakeSpan(clean));
  double log_sum = HUGE_VAL;  // if no token is possible
  if (largest > kMinusInfinity) {
    const auto weights = std::make_unique_for_overwrite<double[]>(clean.size());
    SoftmaxWeights(clean, largest, /*temperature=*/1.0, weights.get());
    log_sum = double{largest} + std::log(SumOf(weights.get(), clean.size()));
  }
  const auto logprob = [log_sum](float logit) {
    const double value = double{logit} - log_sum;
    return static_cast<float>(std::max(value, double{std::numeric_limits<float>::lowest()}));
  };
  out[0] = {id, logprob(clean[id])};
  if (top <= 0) return;
  std::vector<LogitAt> best = TopLogits(clean, top);
  std::sort(best.begin(), best.end(), Before);
  std::fill_n(out + 1, top, LogprobAt());
  for (const LogitAt& c : best) *++out = {c.id, logprob(c.logit)};
}

}  // namespace tessera
