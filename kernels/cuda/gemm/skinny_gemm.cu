#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/common/check.h"
#include "kernels/cuda/gemm/activate.cuh"
#include "kernels/cuda/gemm/precision.h"
#include "kernels/cuda/gemm/skinny_gemm.h"

namespace tessera::cuda {
namespace {

// A block has kOut rows of W. Each of its kWarps warps takes every kWarps-th group of 256 columns.
constexpr int kWarps = 4, kOut = 4, kColumns = 256;

template <class T>
__device__ void Widen(const uint4& packed, float (&out)[8]);
template <>
__device__ void Widen<__half>(const uint4& packed, float (&out)[8]) {
  const auto* h = reinterpret_cast<const __half2*>(&packed);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 f = __half22float2(h[i]);
    out[2 * i] = f.x;
    out[2 * i + 1] = f.y;
  }
}
template <>
__device__ void Widen<__nv_bfloat16>(const uint4& packed, float (&out)[8]) {
  const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    out[2 * i] = __uint_as_float(words[i] << 16);
    out[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}

template <class T, int kRows>
__global__ void __launch_bounds__(kWarps * 32) SkinnyGemmKernel(SkinnyGemmArgs args) {
  __shared__ float parts[kWarps][kOut * kRows];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t first = int64_t{blockIdx.x} * kOut;
  const T* weight = static_cast<const T*>(args.weight) + first * args.in;
  float sum[kOut][kRows] = {};
#pragma unroll 2
  for (int64_t c = warp * kColumns + lane * 8; c < args.in; c += kWarps * kColumns) {
    uint4 packed[kOut];
#pragma unroll
    for (int o = 0; o < kOut; ++o) {
      const bool there = first + o < args.out;
      packed[o] = there ? __ldcs(reinterpret_cast<const uint4*>(weight + o * args.in + c))
                        : uint4{0, 0, 0, 0};
    }
    float w[kOut][8];
#pragma unroll
    for (int o = 0; o < kOut; ++o) Widen<T>(packed[o], w[o]);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= args.rows) break;
      const auto* from = reinterpret_cast<const float4*>(args.x + r * args.in + c);
      const float4 a = from[0], b = from[1];
      const float x[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
      for (int o = 0; o < kOut; ++o) {
#pragma unroll
        for (int i = 0; i < 8; ++i) sum[o][r] = fmaf(x[i], w[o][i], sum[o][r]);
      }
    }
  }
#pragma unroll
  for (int o = 0; o < kOut; ++o) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float v = sum[o][r];
#pragma unroll
      for (int off = 16; off > 0; off /= 2) v += __shfl_xor_sync(~0u, v, off);
      if (lane == 0) parts[warp][r * kOut + o] = v;
    }
  }
  __syncthreads();
  const int r = threadIdx.x / kOut;
  const int64_t o = first + threadIdx.x % kOut;
  if (r >= args.rows || o >= args.out) return;
  float v = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) v += parts[w][threadIdx.x];
  if (args.bias != nullptr) v += args.bias[o];
  v = Activate(v, args.act);
  if (args.residual != nullptr) v += args.residual[r * args.out + o];
  args.y[r * args.out + o] = v;
}

template <class T>
void Launch(cudaStream_t stream, const SkinnyGemmArgs& args) {
  const auto blocks = static_cast<unsigned>(CeilDiv<int64_t>(args.out, kOut));
  const auto kernel = args.rows == 1   ? SkinnyGemmKernel<T, 1>
                      : args.rows == 2 ? SkinnyGemmKernel<T, 2>
                                       : SkinnyGemmKernel<T, kSkinnyRows>;
  kernel<<<blocks, kWarps * 32, 0, stream>>>(args);
  TESSERA_CUDA_CHECK_LAUNCH("SkinnyGemmKernel");
}

}  // namespace

void SkinnyGemm(cudaStream_t stream, DType dtype, const SkinnyGemmArgs& args) {
  static_assert(kSkinnyRows * kOut <= kWarps * 32,
                "a block needs a thread for each of its outputs");
  TESSERA_CHECK(args.rows >= 1 && args.rows <= kSkinnyRows && args.in % 8 == 0);
  TESSERA_CHECK(dtype != DType::kF32);
  if (dtype == DType::kF16) {
    Launch<__half>(stream, args);
  } else {
    Launch<__nv_bfloat16>(stream, args);
  }
}

}  // namespace tessera::cuda
