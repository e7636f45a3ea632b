// Ops::LowPassResiduals on the device.
#pragma once

#include "kernels/cuda/gemm.h"
#include "kernels/cuda/workspace.h"
#include "kernels/ops.h"

namespace tessera::cuda {

struct LowPassJob;

// A base has `kept` of the DCT-II's coefficients of `tokens` numbers: two products with cosines,
// kept * tokens * 2 multiplications a channel each, half of them here because cosines of even
// coefficients are the same from both ends and those of odd ones opposite. By tensor cores, with
// the cosines, the sums and differences of tokens, the coefficients and the residuals rounded to
// half. If `precise`: float32 throughout, tokens^2 products a channel with the weights of the
// low-pass projector (cpu/statistics.h has h), on CUDA cores.
//
// Device memory: about 64 MiB, or one layer's tokens if that is more, and 4 * kept * tokens bytes
// of cosines. Threads: one. Errors: CHECK.
class LowPass {
 public:
  LowPass(Gemm* gemm, cudaStream_t stream, bool precise)
      : gemm_(gemm), stream_(stream), precise_(precise), workspace_(stream) {}

  // As Ops::LowPassResiduals; head_dim a multiple of 8, at most 256.
  void Residuals(const uint8_t* arena, const KvGeometry& geometry, const PageId* pages,
                 int64_t layer_pages, int64_t first, int64_t tokens, int64_t kept, float* out);

 private:
  void Direct(const LowPassJob& job, float* out);
  void ByProducts(const LowPassJob& job, float* out);

  Gemm* gemm_;
  cudaStream_t stream_;
  bool precise_;
  Workspace workspace_;
};

}  // namespace tessera::cuda
