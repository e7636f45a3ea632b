// Query rows of a warp in tensor-core attention, and the softmax of their logits. The kernels with
// mma.sync and those with wgmma share it, because their accumulators have the same layout.
#pragma once

#include <type_traits>

#include "kernels/cuda/attention/paged/paged_work.cuh"
#include "kernels/cuda/attention/prefill/tensor_tiles.cuh"

namespace tessera::cuda {

struct NoMap {};  // no tile has a logit map

// The logit maps, in base 2, of a lane's rows: queries `first` and first + 8 of the work item.
struct RowMaps {
  const PagedArgs& args;
  const PrefillWork& work;
  int first;
  __device__ AffineMap operator()(int r) const {
    const int i = min(first + r * 8, work.queries - 1);
    AffineMap map = args.maps[work.Row(i) * args.heads + work.Head(i)];
    map.shift *= 1.44269504088896341f;
    return map;
  }
};

// 16 query rows. A lane has parts of rows lane / 4 (r = 0) and lane / 4 + 8 (r = 1).
template <int kDim>
struct WarpRows {
  static constexpr int kSteps = kDim / 16;
  uint32_t q[kSteps][4];
  float out[kDim / 8][4];  // channel 8 d + 2 (lane % 4) + e of row r is out[d][2 r + e]
  float max[2], sum[2];    // `sum`: of this lane's columns only
  int limit[2];

  // Sets row r to the query at `from`, which sees tokens before `sees`; null means no query.
  __device__ void Init(int r, const float* from, float scale, int sees) {
    limit[r] = from != nullptr ? sees : 0;
    max[r] = -INFINITY;
    sum[r] = 0;
#pragma unroll
    for (int k = 0; k < kDim / 8; ++k) {
      float2 v = {0, 0};
      if (from != nullptr) {
        v = *reinterpret_cast<const float2*>(from + k * 8 + threadIdx.x % 4 * 2);
      }
      q[k / 2][k % 2 * 2 + r] = Pack(v.x * scale, v.y * scale);
      out[k][2 * r] = out[k][2 * r + 1] = 0;
    }
  }
  // Sets the rows to queries `first` and first + 8 of the work item, with logits in base 2.
  __device__ void Init(const PagedArgs& args, const PrefillWork& work, int first) {
    const int64_t row_floats = int64_t{args.heads + 2 * args.kv.geometry.kv_heads} * kDim;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int i = first + r * 8;
      const bool there = i < work.queries;
      const float* q = args.qkv + work.Row(i) * row_floats + work.Head(i) * kDim;
      Init(r, there ? q : nullptr, args.scale * 1.44269504088896341f, there ? work.Limit(i) : 0);
    }
  }
  __device__ void Store(int r, float* to) const {
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      *reinterpret_cast<float2*>(to + d * 8 + threadIdx.x % 4 * 2) = {out[d][2 * r],
                                                                      out[d][2 * r + 1]};
    }
  }
  __device__ void Store(const PagedArgs& args, const PrefillWork& work, int first) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int i = first + r * 8;
      if (i < work.queries) {
        Store(r, args.out + (work.Row(i) * args.heads + work.Head(i)) * kDim);
      }
    }
  }

  // Turns a tile's logits s into weights: map, mask, online softmax in base 2. The lane's columns t
  // = 8 n + 2 (lane % 4) + e are s[n][2 r + e]. The caller must then multiply `out` by `rescale`.
  template <class Map>
  __device__ void UpdateSoftmax(const Tile& tile, const Map& map, float (&s)[kTile / 8][4],
                                float (&rescale)[2]) {
    const int lane = threadIdx.x % 32;
    if constexpr (!std::is_same<Map, NoMap>::value) {
      if (tile.mapped) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const AffineMap mapped = map(r);
#pragma unroll
          for (int n = 0; n < kTile / 8; ++n) {
            s[n][2 * r] = mapped.Of(s[n][2 * r]);
            s[n][2 * r + 1] = mapped.Of(s[n][2 * r + 1]);
          }
        }
      }
    }
    const bool masked = tile.tokens < kTile || tile.first + kTile > min(limit[0], limit[1]);
    if (masked) {
#pragma unroll
      for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int t = n * 8 + lane % 4 * 2 + i % 2;
          if (t >= tile.tokens || tile.first + t >= limit[i / 2]) s[n][i] = -INFINITY;
        }
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float top = max[r];
#pragma unroll
      for (int n = 0; n < kTile / 8; ++n) top = fmaxf(top, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
      const float base = top == -INFINITY ? 0 : top;
      rescale[r] = Exp2(max[r] - base);
      max[r] = top;
      sum[r] *= rescale[r];
#pragma unroll
      for (int n = 0; n < kTile / 8; ++n) {
        sum[r] += s[n][2 * r] = Exp2(s[n][2 * r] - base);
        sum[r] += s[n][2 * r + 1] = Exp2(s[n][2 * r + 1] - base);
      }
    }
  }
  __device__ void Rescale(const float (&rescale)[2]) {
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out[d][i] *= rescale[i / 2];
    }
  }
  // Packs the weights of tokens 16 k .. 16 k + 15 as the first factor of a product.
  __device__ static void PackWeights(const float (&s)[kTile / 8][4], int k, uint32_t (&p)[4]) {
    p[0] = Pack(s[2 * k][0], s[2 * k][1]);
    p[1] = Pack(s[2 * k][2], s[2 * k][3]);
    p[2] = Pack(s[2 * k + 1][0], s[2 * k + 1][1]);
    p[3] = Pack(s[2 * k + 1][2], s[2 * k + 1][3]);
  }

  // Finishes the result: divides by the sums, then multiplies rows by H (ops.h) if `transformed`.
  __device__ void Finish(bool transformed) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float all = sum[r];
      all += __shfl_xor_sync(~0u, all, 1);
      all += __shfl_xor_sync(~0u, all, 2);
      // Divides x / all with one rounding (Markstein's algorithm), without a division's branches in
      // each channel.
      const float inverse = 1 / all;
      const auto divide = [&](float x) {
        const float quotient = x * inverse;
        return fmaf(fmaf(-quotient, all, x), inverse, quotient);
      };
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) {
        out[d][2 * r] = divide(out[d][2 * r]);
        out[d][2 * r + 1] = divide(out[d][2 * r + 1]);
      }
      if (!transformed) continue;
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) {
        const float a = out[d][2 * r], b = out[d][2 * r + 1];
        float x[2] = {__fadd_rn(a, b), __fsub_rn(a, b)};
#pragma unroll
        for (int step = 1; step <= 2; step *= 2) {
#pragma unroll
          for (float& mine : x) {
            const float other = __shfl_xor_sync(~0u, mine, step);
            mine = threadIdx.x & step ? __fsub_rn(other, mine) : __fadd_rn(mine, other);
          }
        }
        out[d][2 * r] = x[0];
        out[d][2 * r + 1] = x[1];
      }
      const float scale = HadamardScale(kDim);
#pragma unroll
      for (int step = 1; step < kDim / 8; step *= 2) {
#pragma unroll
        for (int d = 0; d < kDim / 8; ++d) {
          if (d & step) continue;
#pragma unroll
          for (int i = 2 * r; i < 2 * r + 2; ++i) {
            const float a = out[d][i], b = out[d + step][i];
            out[d][i] = __fadd_rn(a, b);
            out[d + step][i] = __fsub_rn(a, b);
          }
        }
      }
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) {
        out[d][2 * r] = __fmul_rn(out[d][2 * r], scale);
        out[d][2 * r + 1] = __fmul_rn(out[d][2 * r + 1], scale);
      }
    }
  }
};

}  // namespace tessera::cuda
