// Ops::RankTokens on the device.
#pragma once

#include "kernels/cuda/common/workspace.h"

namespace tessera::cuda {

// Sorts all layers' tokens at once with CUB. Device memory: 16 bytes per token and layer, plus a
// few hundred KiB for CUB. Threads: one thread. Errors: CHECK.
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
