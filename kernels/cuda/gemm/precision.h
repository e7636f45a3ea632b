// How the CUDA backend rounds float activations to the 16-bit inputs of the tensor cores.
//
// Products with 16-bit weights take the activations in the weights' type. A float x is written as a
// sum of `terms` 16-bit numbers; each rounds what the terms before it have left. One term keeps 8
// (bfloat16) or 11 (half) bits of x, two keep twice as many, three keep all 24 bits of a float. The
// terms of all rows are stacked into one product, so that weights are read once, and the epilogue
// kernel adds them in float.
//
// The number of rows in a step therefore affects a row's rounding, and answers may depend on the
// batch. The size of the effect was measured on the 58 goldens of the demo model. First-step logits
// differ from float32 by at most 0.041 (0.0023 with BackendOptions::precise). Batches can therefore
// disagree on a greedy token only if the two best logits are within about 0.08 (0.005).
#pragma once

#include <cstdint>

#include "base/base.h"

namespace tessera {

// Up to this many rows, products with 16-bit weights use skinny_gemm.h, which needs no tensor cores
// and rounds no activation. The columns must be a multiple of kSkinnyColumns.
constexpr int64_t kSkinnyRows = 4, kSkinnyColumns = 8;
constexpr bool FloatActivations(DType weights, int64_t rows, int64_t cols) {
  return weights == DType::kF32 || (rows <= kSkinnyRows && cols % kSkinnyColumns == 0);
}

// Returns the number of terms per activation. `precise` is BackendOptions::precise.
constexpr int ActivationTerms(DType weights, bool precise) {
  if (weights == DType::kF32 || !precise) return 1;
  return weights == DType::kBF16 ? 3 : 2;
}

}  // namespace tessera
