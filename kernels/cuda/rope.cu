#include <cuda_fp16.h>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/check.h"

namespace tessera::cuda {
namespace {

constexpr int kThreads = 128;

// Saturates as FloatToHalf does; NaN stays.
__device__ __half ToHalf(float x) {
  if (fabsf(x) > 65504.0f) x = copysignf(65504.0f, x);
  return __float2half_rn(x);
}

// One block a row. No fused multiply-adds: the rotated bits are those of ops.h's formula.
__global__ void RopeAndStoreKernel(float* qkv, const int32_t* positions, const KvSlot* slots,
                                   int heads, RopeTable rope, KvLayerView kv) {
  const int kv_heads = kv.geometry.kv_heads, dim = kv.geometry.head_dim, half = dim / 2;
  const int64_t row = blockIdx.x;
  float* v = qkv + row * (heads + 2 * kv_heads) * dim;
  const float* cos = rope.cos + int64_t{positions[row]} * half;
  const float* sin = rope.sin + int64_t{positions[row]} * half;
  const KvSlot slot = slots[row];
  uint8_t* page = slot.page == kNoPage ? nullptr : kv.arena + slot.page * kPageUnitBytes;
  for (int i = threadIdx.x; i < (heads + kv_heads) * half; i += kThreads) {
    const int head = i / half, c = i % half;
    float* at = v + head * dim + c;
    const float a = at[0], b = at[half];
    const float x = __fsub_rn(__fmul_rn(a, cos[c]), __fmul_rn(b, sin[c]));
    const float y = __fadd_rn(__fmul_rn(b, cos[c]), __fmul_rn(a, sin[c]));
    at[0] = x;
    at[half] = y;
    if (head < heads || page == nullptr) continue;
    auto* k = reinterpret_cast<__half*>(
        page + Raw16Offset(dim, head - heads, false, static_cast<int>(slot.slot)));
    k[c] = ToHalf(x);
    k[c + half] = ToHalf(y);
  }
  if (page == nullptr) return;
  const float* values = v + (heads + kv_heads) * dim;
  for (int i = threadIdx.x; i < kv_heads * dim; i += kThreads) {
    auto* to = reinterpret_cast<__half*>(
        page + Raw16Offset(dim, i / dim, true, static_cast<int>(slot.slot)));
    to[i % dim] = ToHalf(values[i]);
  }
}

// One block a move: rows of head_dim halves, copied 16 bytes at a time.
__global__ void CopyTokensKernel(uint8_t* arena, KvGeometry geometry, const TokenMove* moves) {
  const TokenMove move = moves[blockIdx.x];
  const int dim = geometry.head_dim, chunks = dim / 8;
  for (int i = threadIdx.x; i < geometry.kv_heads * 2 * chunks; i += kThreads) {
    const int head = i / (2 * chunks), chunk = i % chunks;
    const bool value = i / chunks % 2 != 0;
    const auto at = [&](const KvSlot& s) {
      uint8_t* page = arena + s.page * kPageUnitBytes;
      return reinterpret_cast<uint4*>(page +
                                      Raw16Offset(dim, head, value, static_cast<int>(s.slot))) +
             chunk;
    };
    *at(move.to) = *at(move.from);
  }
}

}  // namespace

void CopyTokens(cudaStream_t stream, uint8_t* arena, const KvGeometry& geometry,
                const TokenMove* moves, int64_t n) {
  if (n == 0) return;
  CopyTokensKernel<<<static_cast<int>(n), kThreads, 0, stream>>>(arena, geometry, moves);
  TESSERA_CUDA_CHECK_LAUNCH("CopyTokensKernel");
}

void RopeAndStore(cudaStream_t stream, float* qkv, const int32_t* positions, const KvSlot* slots,
                  int64_t rows, int64_t heads, const RopeTable& rope, const KvLayerView& kv) {
  if (rows == 0) return;
  RopeAndStoreKernel<<<static_cast<int>(rows), kThreads, 0, stream>>>(
      qkv, positions, slots, static_cast<int>(heads), rope, kv);
  TESSERA_CUDA_CHECK_LAUNCH("RopeAndStoreKernel");
}

}  // namespace tessera::cuda
