// The activations of a dense layer as an operand of cublasLt: a prologue, the rounding to the
// weights' type (precision.h) and the padding in one pass.
#pragma once

#include "kernels/cuda/common/check.h"
#include "kernels/ops.h"

namespace tessera::cuda {

struct ActivationCast {
  const float* x;              // [rows, cols]; under kSwiGlu [rows, 2 * cols]
  int64_t rows, cols, padded;  // padded >= cols: zeros behind
  int terms;
  Prologue prologue;
};

// Whether CastActivations computes the prologue; kNone and kActivation always.
bool FusesPrologue(const ActivationCast& args);
// out [terms, rows, padded] of `dtype`, 16-byte aligned; padded is a multiple of 16 bytes.
void CastActivations(cudaStream_t stream, DType dtype, const ActivationCast& args, void* out);

}  // namespace tessera::cuda
