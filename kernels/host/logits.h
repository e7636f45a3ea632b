// What comes before and after a draw, on the host: one row of Ops::EditLogits and Ops::Logprobs,
// and the parts that they share with the draw. Threads: safe.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/sampling_ops.h"

namespace tessera {

// As Ops::EditLogits, of the row [cols] that `edit` names.
void EditRow(const LogitEdit& edit, const LogitBias* biases, const TokenCount* counts,
             const int32_t* sampled, float* row, int64_t cols);

// As Ops::Logprobs: out [1 + top].
void LogprobsOfRow(const float* row, int64_t cols, int32_t id, int top, LogprobAt* out);

// NaN becomes -infinity, +infinity the largest float; returns the largest logit.
float CleanLogits(absl::Span<float> logits);

struct LogitAt {
  float logit;
  int32_t id;
};
bool Before(const LogitAt& a, const LogitAt& b);  // larger logit, then lower id

// The first `k` in that order, themselves in no order; impossible ones (-infinity) left out.
std::vector<LogitAt> TopLogits(absl::Span<const float> logits, size_t k);

}  // namespace tessera
