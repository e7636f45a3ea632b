// Reduces one value per thread over a block.
#pragma once

#include <cuda_runtime.h>

namespace tessera::cuda {

struct Larger {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};
struct Plus {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

// Returns f over the values of all threads, in every thread and always in the same order. May be
// called repeatedly.
template <int kThreads, class T, class F>
__device__ T BlockReduce(T value, const F& f) {
  __shared__ T shared[kThreads];
  __syncthreads();
  shared[threadIdx.x] = value;
  __syncthreads();
  for (int n = kThreads / 2; n > 0; n /= 2) {
    if (threadIdx.x < n) shared[threadIdx.x] = f(shared[threadIdx.x], shared[threadIdx.x + n]);
    __syncthreads();
  }
  return shared[0];
}

}  // namespace tessera::cuda
