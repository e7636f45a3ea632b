#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/hadamard.cuh"
#include "kernels/cuda/common/halves.cuh"
#include "kernels/cuda/common/programmatic_launch.cuh"

namespace tessera::cuda {
namespace {

constexpr int kWarps = 4;
// Heads per warp. With few rows one head per warp hides memory latency; with many rows two heads
// need fewer blocks.
constexpr int64_t kLatencyBoundRows = 256;
constexpr int HeadsPerWarp(int64_t rows) { return rows <= kLatencyBoundRows ? 1 : 2; }

// A warp takes heads of one row: applies RoPE to q and k, transforms, and stores k and v. The grid
// is (rows, heads of q, k and v / heads per block). There are no fused multiply-adds, so the bits
// are those of ops.h's formula.
__global__ void __launch_bounds__(kWarps * 32)
    RopeAndStoreKernel(float* qkv, const int32_t* positions, const KvSlot* slots,
                       const uint8_t* transform, int heads, int heads_per_warp, RopeTable rope,
                       KvLayerView kv) {
  TriggerDependentLaunch();
  const int kv_heads = kv.geometry.kv_heads, dim = kv.geometry.head_dim, half = dim / 2;
  const int all = heads + 2 * kv_heads, lane = threadIdx.x % 32;
  const int64_t row = blockIdx.x;
  const float* cos = rope.cos + int64_t{positions[row]} * half;
  const float* sin = rope.sin + int64_t{positions[row]} * half;
  const KvSlot slot = slots[row];
  const bool transformed = transform != nullptr && transform[row] != 0;
  const int first = (blockIdx.y * kWarps + threadIdx.x / 32) * heads_per_warp;
  for (int head = first; head < min(first + heads_per_warp, all); ++head) {
    float* v = qkv + (row * all + head) * dim;
    const bool value = head >= heads + kv_heads;
    if (!value) {
      for (int c = lane; c < half; c += 32) {
        const float a = v[c], b = v[c + half];
        v[c] = __fsub_rn(__fmul_rn(a, cos[c]), __fmul_rn(b, sin[c]));
        v[c + half] = __fadd_rn(__fmul_rn(b, cos[c]), __fmul_rn(a, sin[c]));
      }
      __syncwarp();
    }
    if (transformed) {
      WarpHadamard(v, dim);
      __syncwarp();
    }
    if (head < heads || slot.page == kNoPage) continue;
    auto* to = reinterpret_cast<__half*>(kv.arena + slot.page * kPageUnitBytes +
                                         Raw16Offset(dim, head - heads - (value ? kv_heads : 0),
                                                     value, static_cast<int>(slot.slot)));
    for (int c = lane; c < dim; c += 32) to[c] = ToHalf(v[c]);
  }
}

}  // namespace

void RopeAndStore(cudaStream_t stream, float* qkv, const int32_t* positions, const KvSlot* slots,
                  const uint8_t* transform, int64_t rows, int64_t heads, const RopeTable& rope,
                  const KvLayerView& kv) {
  const int dim = kv.geometry.head_dim;
  TESSERA_CHECK(transform == nullptr || CanTransform(dim));
  if (rows == 0) return;
  const int heads_per_warp = HeadsPerWarp(rows);
  const dim3 grid(static_cast<unsigned>(rows),
                  static_cast<unsigned>(CeilDiv<int64_t>(heads + 2 * kv.geometry.kv_heads,
                                                         int64_t{kWarps} * heads_per_warp)));
  RopeAndStoreKernel<<<grid, kWarps * 32, 0, stream>>>(
      qkv, positions, slots, transform, static_cast<int>(heads), heads_per_warp, rope, kv);
  TESSERA_CUDA_CHECK_LAUNCH("RopeAndStoreKernel");
}

}  // namespace tessera::cuda
