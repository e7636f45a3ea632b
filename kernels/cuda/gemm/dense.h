// Dense layers on the device: a cast of the activations to the weights' type (cast_activations.h),
// one cublasLt product, and one kernel for bias, activation function and residual. Few rows take
// one kernel instead (skinny_gemm.h). Threads: one thread. Errors: CHECK.
#pragma once

#include <vector>

#include "kernels/cuda/gemm/gemm.h"
#include "kernels/cuda/gemm/precision.h"
#include "kernels/ops.h"

namespace tessera {

class CudaDense {
 public:
  CudaDense(const CublasLt* lt, cudaStream_t stream, bool precise)
      : stream_(stream),
        precise_(precise),
        gemm_(lt, stream),
        before_(stream),
        cast_(stream),
        product_(stream) {}

  // The weights are row-major [out, in]; both are padded with zeros to whole 16-byte units.
  // `memory` allocates them.
  Linear MakeLinear(const std::vector<LinearPart>& parts, int64_t cols, DType dtype, Ops& memory);
  void MatMul(const Linear& w, const float* x, int64_t rows, float* y, Activation act,
              const float* residual, const Prologue& prologue);

  Gemm& gemm() { return gemm_; }  // other products use it too, to share its workspace

 private:
  // Computes the prologue's rows as floats, for prologues that the cast does not fuse.
  const float* Before(const Prologue& prologue, const float* x, int64_t rows, int64_t in);

  cudaStream_t stream_;
  bool precise_;
  Gemm gemm_;
  Workspace before_, cast_, product_;
};

}  // namespace tessera
