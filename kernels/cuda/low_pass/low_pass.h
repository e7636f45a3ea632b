// Ops::LowPassResiduals on the device.
#pragma once

#include "kernels/cuda/common/workspace.h"
#include "kernels/cuda/gemm/gemm.h"
#include "kernels/ops.h"

namespace tessera::cuda {

struct LowPassJob;

// By way of a grid of 1.5 * kept points and tensor cores (grid.cu), with the grid's numbers and
// weights rounded to half. If `precise`: float32 throughout, tokens^2 products a channel with the
// weights of the low-pass projector (cpu/statistics.h has h), on CUDA cores.
//
// Device memory: at most 512 MiB, or one layer's grid (6 * kept bytes a channel) if that is more;
// 2.25 * kept^2 bytes of filter, at most 512 MiB; and 16 bytes a token, layer and 512 channels.
// Threads: one. Errors: CHECK.
class LowPass {
 public:
  LowPass(Gemm* gemm, cudaStream_t stream, bool precise)
      : gemm_(gemm), stream_(stream), precise_(precise), workspace_(stream) {}

  // As Ops::LowPassResiduals; head_dim a multiple of 8, at most 256.
  void Residuals(const uint8_t* arena, const KvGeometry& geometry, const PageId* pages,
                 int64_t layer_pages, const LowPassSegment& segment, int64_t out_tokens,
                 float* out);

 private:
  void Direct(const LowPassJob& job, float* out);
  void OnGrid(const LowPassJob& job, float* out);  // grid.cu

  Gemm* gemm_;
  cudaStream_t stream_;
  bool precise_;
  Workspace workspace_;
};

}  // namespace tessera::cuda
