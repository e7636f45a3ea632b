#include <cfloat>

#include "kernels/cuda/check.h"
#include "kernels/cuda/sampling.h"

namespace tessera::cuda {
namespace {

constexpr int kThreads = 512;

// A logit and its place as one number: the larger logit wins, then the lower place; what is banned
// loses against everything else.
__device__ uint64_t Rank(float logit, int64_t place, bool banned) {
  // NaN and -infinity alike; 0 + -0 is 0, so that zeros are equal.
  logit = logit == logit ? fminf(logit, FLT_MAX) + 0.0f : -INFINITY;
  const uint32_t bits = __float_as_uint(logit);
  const uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return uint64_t{banned ? 0 : ordered} << 32 | (0xffffffffu - static_cast<uint32_t>(place));
}

__device__ uint64_t Larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

__global__ void __launch_bounds__(kThreads)
    LargestLogitsKernel(const float* logits, int64_t cols, bool vector, const uint8_t* banned,
                        int32_t* ids) {
  __shared__ uint64_t warps[kThreads / 32];
  const float* row = logits + blockIdx.x * cols;
  uint64_t best = 0;
  if (vector) {
    for (int64_t c = threadIdx.x * 4; c < cols; c += kThreads * 4) {
      const float4 v = *reinterpret_cast<const float4*>(row + c);
      const uchar4 b = *reinterpret_cast<const uchar4*>(banned + c);
      best = Larger(best, Larger(Larger(Rank(v.x, c, b.x), Rank(v.y, c + 1, b.y)),
                                 Larger(Rank(v.z, c + 2, b.z), Rank(v.w, c + 3, b.w))));
    }
  } else {
    for (int64_t c = threadIdx.x; c < cols; c += kThreads) {
      best = Larger(best, Rank(row[c], c, banned[c]));
    }
  }
  for (int off = 16; off > 0; off /= 2) best = Larger(best, __shfl_xor_sync(~0u, best, off));
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  best = threadIdx.x < kThreads / 32 ? warps[threadIdx.x] : 0;
  for (int off = 16; off > 0; off /= 2) best = Larger(best, __shfl_xor_sync(~0u, best, off));
  if (threadIdx.x == 0) {
    ids[blockIdx.x] = static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(best));
  }
}

bool Aligned(const void* p, uintptr_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

}  // namespace

void LargestLogits(cudaStream_t stream, const float* logits, int64_t rows, int64_t cols,
                   const uint8_t* banned, int32_t* ids) {
  TESSERA_CHECK(cols > 0 && cols <= INT32_MAX);
  if (rows == 0) return;
  const bool vector = cols % 4 == 0 && Aligned(logits, 16) && Aligned(banned, 4);
  LargestLogitsKernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(logits, cols, vector,
                                                                            banned, ids);
  TESSERA_CUDA_CHECK_LAUNCH("LargestLogitsKernel");
}

}  // namespace tessera::cuda
