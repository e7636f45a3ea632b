#include <climits>

#include "kernels/cuda/attention/logit_maps.h"
#include "kernels/cuda/attention/paged/add_tokens.cuh"
#include "kernels/cuda/attention/paged/paged_work.cuh"
#include "kernels/cuda/common/check.h"

namespace tessera::cuda {
namespace {

constexpr int kWarps = 4;

// Takes tokens as WarpAttention does, and keeps the smallest and the largest logit of one query.
template <int kLanes>
struct WarpExtremes {
  static constexpr int kTokens = 32 / kLanes;

  float q[8] = {};
  float low = INFINITY, high = -INFINITY;

  __device__ static int Column() { return threadIdx.x % kLanes; }
  __device__ static int TokenLane() { return threadIdx.x % 32 / kLanes; }

  template <int kSteps, class K, class V, class Token>
  __device__ void Add(const K& k, const V&, const Token& token) {
#pragma unroll
    for (int j = 0; j < kSteps; ++j) {
      float key[8];
      k(j, key);
      float dot = q[0] * key[0];
#pragma unroll
      for (int i = 1; i < 8; ++i) dot = fmaf(q[i], key[i], dot);
#pragma unroll
      for (int off = kLanes / 2; off > 0; off /= 2) dot += __shfl_xor_sync(~0u, dot, off);
      if (token(j) == INT_MAX) continue;
      low = fminf(low, dot);
      high = fmaxf(high, dot);
    }
  }
  __device__ void MergeLanes() {
#pragma unroll
    for (int off = kLanes; off < 32; off *= 2) {
      low = fminf(low, __shfl_xor_sync(~0u, low, off));
      high = fmaxf(high, __shfl_xor_sync(~0u, high, off));
    }
  }
};

// One warp per row and head.
template <int kLanes>
__global__ void __launch_bounds__(kWarps * 32)
    LogitMapsKernel(PagedArgs args, int64_t rows, AffineMap* maps, unsigned long long* clamped) {
  const int64_t at = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (at >= rows * args.heads) return;
  const auto row = static_cast<int>(at / args.heads), head = static_cast<int>(at % args.heads);
  const int s = SequenceOf(args.query_begin, args.sequences, row);
  const int dim = args.kv.geometry.head_dim, kv_heads = args.kv.geometry.kv_heads;
  WarpExtremes<kLanes> extremes;
  if (extremes.Column() * 8 < dim) {
    const float* q = args.qkv + (int64_t{row} * (args.heads + 2 * kv_heads) + head) * dim;
    LoadFloats(q + extremes.Column() * 8, extremes.q);
#pragma unroll
    for (float& x : extremes.q) x *= args.scale;
  }
  LogitMap map;
  for (int r = args.kv.run_begin[s]; r < args.kv.run_begin[s + 1]; ++r) {
    const KvRun run = args.kv.runs[r];
    if (run.map.identity()) continue;
    map = run.map;
    AddLowBits(args, run, 0, 0, run.tokens, head / args.group, extremes);
  }
  if (map.identity()) return;
  extremes.MergeLanes();
  if (threadIdx.x % 32 != 0) return;
  const float range = extremes.high - extremes.low, target = range - map.raise - map.lower;
  const float slope = target > 0 ? target / range : 0;
  maps[at] = {slope, fmaf(-slope, extremes.low, extremes.low + map.raise)};
  if (target < 0) atomicAdd(clamped, 1ull);
}

}  // namespace

void FindLogitMaps(cudaStream_t stream, const PagedArgs& args, int64_t rows, AffineMap* maps,
                   unsigned long long* clamped) {
  const int dim = args.kv.geometry.head_dim;
  TESSERA_CHECK(dim % 8 == 0 && dim <= 256);
  const auto blocks = static_cast<unsigned>(CeilDiv<int64_t>(rows * args.heads, kWarps));
  const auto kernel = dim <= 64    ? LogitMapsKernel<8>
                      : dim <= 128 ? LogitMapsKernel<16>
                                   : LogitMapsKernel<32>;
  kernel<<<blocks, kWarps * 32, 0, stream>>>(args, rows, maps, clamped);
  TESSERA_CUDA_CHECK_LAUNCH("LogitMapsKernel");
}

}  // namespace tessera::cuda
