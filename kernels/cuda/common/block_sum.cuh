// Sums one value per thread over a block.
#pragma once

#include <cuda_runtime.h>

namespace tessera::cuda {

// Returns the sum in every thread: a tree over the lanes, then over the warps. May be called
// repeatedly.
template <int kThreads, class T>
__device__ T BlockSum(T v) {
  static_assert(kThreads % 32 == 0 && kThreads <= 1024, "");
  __shared__ T warps[kThreads / 32];
  for (int off = 16; off > 0; off /= 2) v += __shfl_xor_sync(~0u, v, off);
  __syncthreads();  // readers of the previous call are done
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = v;
  __syncthreads();
  v = threadIdx.x % 32 < kThreads / 32 ? warps[threadIdx.x % 32] : 0;
  for (int off = 16; off > 0; off /= 2) v += __shfl_xor_sync(~0u, v, off);
  return v;
}

}  // namespace tessera::cuda
