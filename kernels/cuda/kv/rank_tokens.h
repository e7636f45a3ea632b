// Ops::RankTokens on the device.
#pragma once

#include "kernels/cuda/common/workspace.h"

namespace tessera::cuda {

// All layers' tokens are sorted at once, by CUB. Device memory: 16 bytes a token and layer, and
// CUB's few hundred KiB. Threads: one. Errors: CHECK.
class TokenRanker {
 public:
  explicit TokenRanker(cudaStream_t stream) : stream_(stream), workspace_(stream) {}

  void Run(const float* residuals, const uint8_t* vision, int64_t layers, int64_t tokens,
           int32_t* ranks, double* sums);

 private:
  cudaStream_t stream_;
  Workspace workspace_;
};

}  // namespace tessera::cuda
