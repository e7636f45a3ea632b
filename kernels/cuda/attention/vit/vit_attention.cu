#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/attention/paged/warp_attention.cuh"
#include "kernels/cuda/common/check.h"

namespace tessera::cuda {
namespace {

constexpr int kWarps = 4, kQueries = 8, kSteps = 2;

// One warp per kQueries neighbouring tokens of one head of one image. The four warps of a block
// read the same K and V.
template <int kLanes>
__global__ void __launch_bounds__(kWarps * 32)
    VitAttentionKernel(const float* qkv, int tokens, int heads, int dim, float scale, float* out) {
  using Attention = WarpAttention<kLanes, kQueries>;
  const int first = (static_cast<int>(blockIdx.x) * kWarps + threadIdx.x / 32) * kQueries;
  if (first >= tokens) return;
  const int head = blockIdx.y;
  const int64_t stride = int64_t{3} * heads * dim;
  qkv += int64_t{blockIdx.z} * tokens * stride + head * dim;
  out += (int64_t{blockIdx.z} * tokens * heads + head) * dim;
  const bool active = Attention::Column() * 8 < dim;
  const float* keys = qkv + int64_t{heads} * dim + Attention::Column() * 8;
  const int64_t to_value = int64_t{heads} * dim;

  Attention attention;
#pragma unroll
  for (int g = 0; g < kQueries; ++g) {
    const bool there = first + g < tokens;
    attention.Init(g, there, qkv + (there ? first + g : first) * stride, dim, scale, tokens);
  }
  for (int t = Attention::TokenLane(); t - Attention::TokenLane() < tokens;
       t += Attention::kTokens * kSteps) {
    float key[kSteps][8] = {}, value[kSteps][8] = {};
#pragma unroll
    for (int j = 0; j < kSteps; ++j) {
      const int token = t + j * Attention::kTokens;
      if (!active || token >= tokens) continue;
      LoadFloats(keys + token * stride, key[j]);
      LoadFloats(keys + token * stride + to_value, value[j]);
    }
    const auto copy = [](const float(&from)[8], float(&to)[8]) {
#pragma unroll
      for (int i = 0; i < 8; ++i) to[i] = from[i];
    };
    attention.template Add<kSteps>([&](int j, float(&k)[8]) { copy(key[j], k); },
                                   [&](int j, float(&v)[8]) { copy(value[j], v); },
                                   [&](int j) { return t + j * Attention::kTokens; });
  }
  attention.MergeLanes();
#pragma unroll
  for (int g = 0; g < kQueries; ++g) {
    attention.Store(g, dim, false, out + int64_t{first + g} * heads * dim);
  }
}

using Kernel = void (*)(const float*, int, int, int, float, float*);

Kernel KernelFor(int64_t dim) {
  switch (LanesOf(dim)) {
    case 2:
      return VitAttentionKernel<2>;
    case 4:
      return VitAttentionKernel<4>;
    case 8:
      return VitAttentionKernel<8>;
    case 16:
      return VitAttentionKernel<16>;
    default:
      return VitAttentionKernel<32>;
  }
}

}  // namespace

void VitAttention(cudaStream_t stream, const float* qkv, int64_t images, int64_t tokens,
                  int64_t heads, int64_t dim, float* out) {
  TESSERA_CHECK(dim > 0 && dim % 8 == 0 && dim <= 256);
  if (images == 0 || tokens == 0) return;
  const dim3 grid(static_cast<unsigned>(CeilDiv<int64_t>(tokens, kWarps * kQueries)),
                  static_cast<unsigned>(heads), static_cast<unsigned>(images));
  const float scale = 1 / sqrtf(static_cast<float>(dim));
  KernelFor(dim)<<<grid, kWarps * 32, 0, stream>>>(
      qkv, static_cast<int>(tokens), static_cast<int>(heads), static_cast<int>(dim), scale, out);
  TESSERA_CUDA_CHECK_LAUNCH("VitAttentionKernel");
}

}  // namespace tessera::cuda
