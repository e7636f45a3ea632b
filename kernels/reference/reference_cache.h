// The scalar truth of what writes low-bit pages, of the Walsh-Hadamard transform and of logit maps:
// the part of the reference backend (reference.h) that KV policies ask for, element by element.
#pragma once

#include <vector>

#include "kernels/ops.h"

namespace tessera {

void ReferenceMoveTokens(uint8_t* arena, const KvGeometry& geometry, Format to,
                         const QuantRule& rule, const TokenMove* moves, int64_t n);

// x[0 .. n) times H, in the order of operations that Ops::RopeAndStore states. n: a power of two.
void ReferenceHadamard(float* x, int64_t n);

// Maps one query's logits of all runs with that map, which are at least one; true: the slope was
// held at 0, which sends all of them to their minimum + map.raise.
bool ReferenceMapLogits(const LogitMap& map, const std::vector<double*>& logits);

}  // namespace tessera
