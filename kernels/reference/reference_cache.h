// The part of the reference backend (reference.h) for KV policies, element by element: writing
// low-bit pages, the Walsh-Hadamard transform, and logit maps.
#pragma once

#include <vector>

#include "kernels/ops.h"

namespace tessera {

void ReferenceMoveTokens(uint8_t* arena, const KvGeometry& geometry, Format to,
                         const QuantRule& rule, const TokenMove* moves, int64_t n);

// Multiplies x[0 .. n) by H in the order of operations that Ops::RopeAndStore states. REQUIRES: n
// is a power of two.
void ReferenceHadamard(float* x, int64_t n);

// Applies `map` to one query's logits of all runs with that map (at least one). Returns whether the
// slope was clamped to 0, which sends all logits to their minimum + map.raise.
bool ReferenceMapLogits(const LogitMap& map, const std::vector<double*>& logits);

}  // namespace tessera
