// Skinny GEMM: dense layers of a few rows without tensor cores. float32 activations times 16-bit
// weights, all sums in float32; bias, activation function and residual in the same kernel.
//
// With so few rows a product takes as long as reading its weights, whatever the arithmetic. One
// launch is then faster than cast, product and epilogue, and no activation is rounded.
#pragma once

#include <cuda_runtime.h>

#include "kernels/ops.h"

namespace tessera::cuda {

struct SkinnyGemmArgs {
  const void* weight;     // [out, in], rows 16-byte aligned: in % 8 == 0
  const float* bias;      // or null
  const float* x;         // [rows, in], 16-byte aligned
  const float* residual;  // or null; may be y
  float* y;               // [rows, out]
  int64_t in, out;
  int rows;  // 1 .. kSkinnyRows
  Activation act;
};

// `dtype`: kF16 or kBF16.
void SkinnyGemm(cudaStream_t stream, DType dtype, const SkinnyGemmArgs& args);

}  // namespace tessera::cuda
