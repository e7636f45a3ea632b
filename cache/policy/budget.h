// Budgets across layers: what allocators by a layer statistic end in.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace tessera {

// Integers that sum to `total`, as proportional to `weights` (not negative) as [min, max] lets them
// be: clipped shares, what clipping takes or gives going to the others in proportion (the fixed
// point of doing so again and again), rounded by largest remainder, the earlier first where equal.
// Weights that are all zero count as equal, one that is not a finite number as zero: of a model
// whose numbers overflow. REQUIRES: n * min <= total <= n * max.
std::vector<int64_t> ShareOut(int64_t total, absl::Span<const double> weights, int64_t min,
                              int64_t max);

}  // namespace tessera
