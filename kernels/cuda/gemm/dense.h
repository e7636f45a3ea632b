// Dense layers on the device: activations to the weights' type (cast_activations.h), one cublasLt
// product, and one kernel for bias, activation function and residual.
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

  // `allocate`d weights are row-major [out, in], both padded with zeros to whole 16-byte rows.
  Linear MakeLinear(const std::vector<LinearPart>& parts, int64_t cols, DType dtype, Ops& memory);
  void MatMul(const Linear& w, const float* x, int64_t rows, float* y, Activation act,
              const float* residual, const Prologue& prologue);

  Gemm& gemm() { return gemm_; }  // for other products, so that there is one workspace

 private:
  // The prologue's rows as floats, where the operand's kernel does not compute it.
  const float* Before(const Prologue& prologue, const float* x, int64_t rows, int64_t in);

  cudaStream_t stream_;
  bool precise_;
  Gemm gemm_;
  Workspace before_, cast_, product_;
};

}  // namespace tessera
