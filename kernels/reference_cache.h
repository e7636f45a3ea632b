// The scalar truth of what writes low-bit pages, and of the Walsh-Hadamard transform: the part of
// the reference backend (reference.h) that is about stored bytes, element by element.
#pragma once

#include "kernels/ops.h"

namespace tessera {

void ReferenceMoveTokens(uint8_t* arena, const KvGeometry& geometry, Format to,
                         const QuantRule& rule, const TokenMove* moves, int64_t n);

// x[0 .. n) times H, in the order of operations that Ops::RopeAndStore states. n: a power of two.
void ReferenceHadamard(float* x, int64_t n);

}  // namespace tessera
