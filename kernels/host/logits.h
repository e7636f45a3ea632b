// The steps before and after sampling, on the host: one row of Ops::EditLogits and Ops::Logprobs,
// and helpers that they share with sample.cc. Threads: safe.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/sampling_ops.h"

namespace tessera {

// Applies `edit` to its row [cols], as Ops::EditLogits.
void EditRow(const LogitEdit& edit, const LogitBias* biases, const TokenCount* counts,
             const int32_t* sampled, float* row, int64_t cols);

// Computes out [1 + top] for one row, as Ops::Logprobs.
void LogprobsOfRow(const float* row, int64_t cols, int32_t id, int top, LogprobAt* out);

// Replaces NaN by -infinity and +infinity by the largest float. Returns the largest logit.
float CleanLogits(absl::Span<float> logits);

struct LogitAt {
  float logit;
  int32_t id;
};
bool Before(const LogitAt& a, const LogitAt& b);  // order: larger logit, then lower id

// Returns the first `k` in that order, unsorted, without impossible ones (-infinity).
std::vector<LogitAt> TopLogits(absl::Span<const float> logits, size_t k);

}  // namespace tessera
