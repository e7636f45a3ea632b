// Partial results of a sequence's chunks. Each chunk stores its own; the warp of the last chunk to
// finish merges them and writes the result.
#pragma once

#include "kernels/cuda/attention/paged/paged_work.cuh"
#include "kernels/cuda/attention/paged/warp_attention.cuh"

namespace tessera::cuda {

// Sets query g of the warp to the merged results of all chunks of a head. Each lane weighs one
// chunk, and many loads are in flight at a time, because no other work hides the latency of the
// last chunk.
template <int kLanes, int kQueries>
__device__ void MergePartials(const PagedArgs& args, int begin, int chunks, int head, int g,
                              WarpAttention<kLanes, kQueries>& attention) {
  using Attention = WarpAttention<kLanes, kQueries>;
  constexpr int kAtOnce = kLanes < 8 ? 2 : kQueries > 1 ? 4 : 8;
  const int dim = args.kv.geometry.head_dim, column = Attention::Column() * 8;
  const int lane = threadIdx.x % 32;
  float top = -INFINITY, sum = 0;
  for (int c = lane; c < chunks; c += 32) {
    top = fmaxf(top, __ldcg(args.partial_max + int64_t{begin + c} * args.heads + head));
  }
  for (int off = 16; off > 0; off /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, off));
  float acc[8] = {};
  for (int base = 0; base < chunks; base += 32) {
    float weight = 0;
    if (base + lane < chunks) {
      const int64_t at = int64_t{begin + base + lane} * args.heads + head;
      weight = expf(__ldcg(args.partial_max + at) - top);
      sum = fmaf(weight, __ldcg(args.partial_sum + at), sum);
    }
    for (int i = 0; i < 32 && base + i < chunks; i += Attention::kTokens * kAtOnce) {
      float w[kAtOnce];
      float4 a[kAtOnce], b[kAtOnce];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        w[j] = __shfl_sync(~0u, weight, i + j * Attention::kTokens + Attention::TokenLane());
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        const int c = base + i + j * Attention::kTokens + Attention::TokenLane();
        const bool there = c < chunks && column < dim;
        const int64_t at = int64_t{begin + c} * args.heads + head;
        const float4* from = reinterpret_cast<const float4*>(args.partial + at * dim + column);
        a[j] = there ? __ldcg(from) : float4{0, 0, 0, 0};
        b[j] = there ? __ldcg(from + 1) : float4{0, 0, 0, 0};
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        acc[0] = fmaf(w[j], a[j].x, acc[0]), acc[1] = fmaf(w[j], a[j].y, acc[1]);
        acc[2] = fmaf(w[j], a[j].z, acc[2]), acc[3] = fmaf(w[j], a[j].w, acc[3]);
        acc[4] = fmaf(w[j], b[j].x, acc[4]), acc[5] = fmaf(w[j], b[j].y, acc[5]);
        acc[6] = fmaf(w[j], b[j].z, acc[6]), acc[7] = fmaf(w[j], b[j].w, acc[7]);
      }
    }
  }
  for (int off = 16; off > 0; off /= 2) sum += __shfl_xor_sync(~0u, sum, off);
  attention.sum[g] = sum;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
#pragma unroll
    for (int off = kLanes; off < 32; off *= 2) acc[i] += __shfl_xor_sync(~0u, acc[i], off);
    attention.acc[g][i] = acc[i];
  }
}

// Stores query g's partial result of a chunk.
template <int kLanes, int kQueries>
__device__ void StorePartial(const PagedArgs& args, int chunk, int head, int g,
                             const WarpAttention<kLanes, kQueries>& attention) {
  using Attention = WarpAttention<kLanes, kQueries>;
  const int dim = args.kv.geometry.head_dim, column = Attention::Column() * 8;
  if (Attention::TokenLane() != 0) return;
  const int64_t at = int64_t{chunk} * args.heads + head;
  if (column == 0) {
    args.partial_max[at] = attention.max[g];
    args.partial_sum[at] = attention.sum[g];
  }
  if (column >= dim) return;
  const float(&a)[8] = attention.acc[g];
  float4* to = reinterpret_cast<float4*>(args.partial + at * dim + column);
  to[0] = {a[0], a[1], a[2], a[3]};
  to[1] = {a[4], a[5], a[6], a[7]};
}

// Returns whether this was the last chunk of its sequence to finish. If so, the others' partial
// results can be read.
__device__ inline bool IsLastChunk(const PagedArgs& args, const DecodeWork& work) {
  __threadfence();
  __syncwarp();
  int finished = 0;
  if (threadIdx.x % 32 == 0) {
    finished = atomicAdd(&args.plan.finished[work.s * args.head_blocks() + work.head_block], 1);
  }
  if (__shfl_sync(~0u, finished, 0) != work.chunks - 1) return false;
  __threadfence();
  return true;
}

// Writes the result of query head `head` of a decoding sequence.
template <int kLanes, int kQueries>
__device__ void StoreDecoded(const PagedArgs& args, const DecodeWork& work, int head, int g,
                             WarpAttention<kLanes, kQueries>& attention) {
  const int dim = args.kv.geometry.head_dim;
  attention.Store(g, dim, args.Transformed(work.s),
                  args.out + (int64_t{args.query_begin[work.s]} * args.heads + head) * dim);
}

}  // namespace tessera::cuda
