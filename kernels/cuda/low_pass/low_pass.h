// Ops::LowPassResiduals on the device.
#pragma once

#include "kernels/cuda/common/workspace.h"
#include "kernels/cuda/gemm/gemm.h"
#include "kernels/ops.h"

namespace tessera::cuda {

struct LowPassJob;

// Computes the residuals through a grid of 1.5 * kept points on tensor cores (grid.cu), with the
// grid's numbers and weights rounded to half. If `precise`, it is float32 throughout on CUDA cores:
// tokens^2 products per channel with the weights of the low-pass projector (cpu/statistics.h has
// h).
//
// Device memory: at most 512 MiB, or one layer's grid (6 * kept bytes per channel) if that is more;
// 2.25 * kept^2 bytes of filter, at most 512 MiB; and 16 bytes per token, layer and 512 channels.
// Threads: one thread. Errors: CHECK.
class LowPass {
 public:
  LowPass(Gemm* gemm, cudaStream_t stream, bool precise)
      : gemm_(gemm), stream_(stream), precise_(precise), workspace_(stream) {}

  // The same as Ops::LowPassResiduals. REQUIRES: head_dim is a multiple of 8 and at most 256.
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
