// Attention of a few queries over a stream of tokens by one warp, in float32 throughout.
//
// kLanes lanes share a token. Their lane c has dims 8c .. 8c+7 of the queries, of the token's K and
// V, and of the result. The warp sees 32 / kLanes tokens at a time. Each group of lanes runs its
// own online softmax over the tokens it sees, so only the dot products cross lanes until the end.
// If a head dim does not fill the lanes, the rest has zeros.
#pragma once

#include "kernels/cuda/common/hadamard.cuh"
#include "kernels/cuda/common/halves.cuh"

namespace tessera::cuda {

// Returns the lanes for a head dim: ceil(dim / 8), rounded up to a power of two, at least 2.
constexpr int LanesOf(int64_t dim) {
  int lanes = 2;
  while (lanes * 8 < dim) lanes *= 2;
  return lanes;
}

template <int kLanes, int kQueries>
struct WarpAttention {
  static constexpr int kTokens = 32 / kLanes;  // tokens seen at a time

  float q[kQueries][8], acc[kQueries][8], max[kQueries], sum[kQueries];
  int limit[kQueries];  // query g sees tokens before limit[g]; 0: no such query

  __device__ static int Column() { return threadIdx.x % kLanes; }
  __device__ static int TokenLane() { return threadIdx.x % 32 / kLanes; }

  // Initialises query g from `from`, which must be readable even if there is no such query. The
  // softmax scale is multiplied into q.
  __device__ void Init(int g, bool there, const float* from, int dim, float scale, int sees) {
    limit[g] = there ? sees : 0;
    max[g] = -INFINITY;
    sum[g] = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) q[g][i] = acc[g][i] = 0;
    if (!there || Column() * 8 >= dim) return;
    LoadFloats(from + Column() * 8, q[g]);
#pragma unroll
    for (int i = 0; i < 8; ++i) q[g][i] *= scale;
  }

  // Adds kSteps tokens per group of lanes. k(j) and v(j) return this lane's 8 dims of token(j). A
  // missing token has token(j) = INT_MAX and zeros. map(g, score) maps query g's score.
  template <int kSteps, class K, class V, class Token>
  __device__ void Add(const K& k, const V& v, const Token& token) {
    Add<kSteps>(k, v, token, [](int, float score) { return score; });
  }
  template <int kSteps, class K, class V, class Token, class Map>
  __device__ void Add(const K& k, const V& v, const Token& token, const Map& map) {
    float score[kQueries][kSteps];
#pragma unroll
    for (int j = 0; j < kSteps; ++j) {
      float key[8];
      k(j, key);
#pragma unroll
      for (int g = 0; g < kQueries; ++g) {
        float dot = q[g][0] * key[0];
#pragma unroll
        for (int i = 1; i < 8; ++i) dot = fmaf(q[g][i], key[i], dot);
#pragma unroll
        for (int off = kLanes / 2; off > 0; off /= 2) dot += __shfl_xor_sync(~0u, dot, off);
        score[g][j] = token(j) < limit[g] ? map(g, dot) : -INFINITY;
      }
    }
#pragma unroll
    for (int g = 0; g < kQueries; ++g) {
      float top = max[g];
#pragma unroll
      for (int j = 0; j < kSteps; ++j) top = fmaxf(top, score[g][j]);
      const float base = top == -INFINITY ? 0 : top;  // no token seen yet: all weights are 0
      const float rescale = expf(max[g] - base);
      max[g] = top;
      sum[g] *= rescale;
#pragma unroll
      for (int i = 0; i < 8; ++i) acc[g][i] *= rescale;
#pragma unroll
      for (int j = 0; j < kSteps; ++j) sum[g] += score[g][j] = expf(score[g][j] - base);
    }
#pragma unroll
    for (int j = 0; j < kSteps; ++j) {
      float value[8];
      v(j, value);
#pragma unroll
      for (int g = 0; g < kQueries; ++g) {
#pragma unroll
        for (int i = 0; i < 8; ++i) acc[g][i] = fmaf(score[g][j], value[i], acc[g][i]);
      }
    }
  }

  // Merges another partial result into query g.
  __device__ void Merge(int g, float other_max, float other_sum, const float (&other)[8]) {
    const float top = fmaxf(max[g], other_max);
    const float base = top == -INFINITY ? 0 : top;
    const float mine = expf(max[g] - base), theirs = expf(other_max - base);
    max[g] = top;
    sum[g] = sum[g] * mine + other_sum * theirs;
#pragma unroll
    for (int i = 0; i < 8; ++i) acc[g][i] = acc[g][i] * mine + other[i] * theirs;
  }

  // Merges the groups of lanes; every group then has the whole result.
  __device__ void MergeLanes() {
#pragma unroll
    for (int off = kLanes; off < 32; off *= 2) {
#pragma unroll
      for (int g = 0; g < kQueries; ++g) {
        float other[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) other[i] = __shfl_xor_sync(~0u, acc[g][i], off);
        const float other_max = __shfl_xor_sync(~0u, max[g], off);
        const float other_sum = __shfl_xor_sync(~0u, sum[g], off);
        Merge(g, other_max, other_sum, other);
      }
    }
  }

  // Writes query g's result from the first group of lanes, times H (ops.h) if `transformed`.
  __device__ void Store(int g, int dim, bool transformed, float* out) const {
    if (limit[g] == 0) return;
    const float inverse = 1 / sum[g];
    float x[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = acc[g][i] * inverse;
    if (transformed) HadamardInLanes(x, dim);
    if (TokenLane() != 0 || Column() * 8 >= dim) return;
    float4* to = reinterpret_cast<float4*>(out + Column() * 8);
    to[0] = {x[0], x[1], x[2], x[3]};
    to[1] = {x[4], x[5], x[6], x[7]};
  }
};

}  // namespace tessera::cuda
