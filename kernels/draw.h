// Drawing a token from logits, on the host: one row of Ops::DrawTokens, and its parts for those who
// change the logits first. Threads: safe.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/ops.h"

namespace tessera {

// As Ops::DrawTokens; `rule` null: temperature 0.
int32_t DrawRow(const float* logits, int64_t cols, const uint8_t* banned, const DrawRule* rule);

// NaN becomes -infinity, +infinity the largest float; returns the largest logit.
float CleanLogits(absl::Span<float> logits);

// The token that `rule`, of a temperature above 0, draws from clean logits, of which the largest is
// finite. Probabilities are computed in double.
int32_t DrawToken(absl::Span<const float> logits, float largest, const DrawRule& rule);

struct LogitAt {
  float logit;
  int32_t id;
};
bool Before(const LogitAt& a, const LogitAt& b);  // larger logit, then lower id

// The first `k` in that order, themselves in no order; impossible ones (-infinity) left out.
std::vector<LogitAt> TopLogits(absl::Span<const float> logits, size_t k);

}  // namespace tessera
