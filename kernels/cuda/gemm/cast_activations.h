// Casts a dense layer's activations for cublasLt: a prologue, the rounding to the weights' type
// (precision.h) and the padding in one pass.
#pragma once

#include "kernels/cuda/common/check.h"
#include "kernels/ops.h"

namespace tessera::cuda {

struct ActivationCast {
  const float* x;              // [rows, cols]; [rows, 2 * cols] for kSwiGlu
  int64_t rows, cols, padded;  // padded >= cols; zeros after cols
  int terms;                   // ActivationTerms
  Prologue prologue;
};

// Returns whether CastActivations can compute the prologue. Always true for kNone and kActivation.
bool FusesPrologue(const ActivationCast& args);
// Computes out [terms, rows, padded] of type `dtype`, 16-byte aligned; padded is a multiple of 16
// bytes. REQUIRES: FusesPrologue(args).
void CastActivations(cudaStream_t stream, DType dtype, const ActivationCast& args, void* out);

}  // namespace tessera::cuda
