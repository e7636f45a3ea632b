// What the backends in host memory share of operations that need no instruction set.
#pragma once

#include "kernels/ops.h"

namespace tessera {

// out[rows, in] = the prologue's values of x, by the operations of `ops`.
void ApplyPrologue(Ops& ops, const Prologue& prologue, const float* x, int64_t rows, int64_t in,
                   float* out);

// Ops::TakeDrawn.
void TakeDrawnIds(const int32_t* drawn, int32_t* ids, int64_t rows);

}  // namespace tessera
