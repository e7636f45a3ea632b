// Divides a token budget among layers by a statistic of each layer.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace tessera {

// Returns integers in [min, max] that sum to `total` and are as proportional to `weights` as the
// bounds allow. Weights must not be negative.
//
// Shares are clipped to the bounds. The tokens that clipping takes or gives go to the other shares
// in proportion, repeated to the fixed point. Rounding is by largest remainder; the earlier share
// wins a tie. Weights that are all zero count as equal. A weight that is not finite counts as zero
// (a model whose numbers overflow). REQUIRES: n * min <= total <= n * max.
std::vector<int64_t> ShareOut(int64_t total, absl::Span<const double> weights, int64_t min,
                              int64_t max);

}  // namespace tessera
