// How the CUDA backend turns float activations into the 16-bit operands of the tensor cores.
//
// Products with 16-bit weights take the activations in the weights' type. A float x is written as a
// sum of `terms` 16-bit numbers, each the rounding of what the ones before have left: one term
// keeps 8 (bfloat16) or 11 (half) bits of x, two twice as many, three all of a float's 24. The
// terms of all rows are stacked into one product, so that weights are read once, and added in
// float by a kernel behind it.
//
// The number of rows in a step therefore touches a row's roundings, and answers may depend on the
// batch. How much was measured on the 58 goldens of the demo model: first-step logits differ from
// float32 by at most 0.041 (0.0023 with BackendOptions::precise), so that batches can disagree on a
// greedy token only where the two best logits lie within about 0.08 (0.005) of each other.
#pragma once

#include <cstdint>

#include "base/base.h"

namespace tessera {

// Up to this many rows products with 16-bit weights need no tensor cores and round no activation
// (skinny_gemm.h), if the columns are a multiple of kSkinnyColumns.
constexpr int64_t kSkinnyRows = 4, kSkinnyColumns = 8;
constexpr bool FloatActivations(DType weights, int64_t rows, int64_t cols) {
  return weights == DType::kF32 || (rows <= kSkinnyRows && cols % kSkinnyColumns == 0);
}

// Terms of one activation. `precise`: BackendOptions::precise.
constexpr int ActivationTerms(DType weights, bool precise) {
  if (weights == DType::kF32 || !precise) return 1;
  return weights == DType::kBF16 ? 3 : 2;
}

}  // namespace tessera
