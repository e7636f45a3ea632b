// Prefill on tensor cores: several query rows of a sequence, over pages of any format, in half
// precision with float sums; head dims 64 and 128.
#pragma once

#include <type_traits>

#include "kernels/cuda/paged_units.cuh"
#include "kernels/cuda/tensor_tiles.cuh"

namespace tessera::cuda {
// A block of four warps takes 64 queries of one KV head, 16 a warp, and runs over the sequence's
// tokens in tiles of 64, two of them in shared memory: one is computed on, one is on its way.
static_assert(kPrefillRows == kThreads / 32 * 16, "");
constexpr int PrefillSharedBytes(int dim) { return 4 * kTile * dim * 2; }

__device__ inline void LoadMatrices(uint32_t from, uint32_t (&m)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(from));
}
__device__ inline void LoadMatricesTransposed(uint32_t from, uint32_t (&m)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(from));
}

struct NoMap {};  // of logits, in any tile

template <int kDim>
struct WarpRows {
  static constexpr int kSteps = kDim / 16;
  uint32_t q[kSteps][4];
  float out[kDim / 8][4];
  float max[2], sum[2];  // of rows lane / 4 and lane / 4 + 8; sums of this lane's columns only
  int limit[2];

  // The result: divides by the sums, then multiplies rows by H (ops.h) if `transformed`. Channel
  // 8 d + 2 t + e of a row is out[d][2 r + e] of the row's lane t.
  __device__ void Finish(bool transformed) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float all = sum[r];
      all += __shfl_xor_sync(~0u, all, 1);
      all += __shfl_xor_sync(~0u, all, 2);
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) {
        out[d][2 * r] /= all;
        out[d][2 * r + 1] /= all;
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

  // S = Q K^T, online softmax in base 2, O += P V over one tile. map(r): that of row
  // lane / 4 + 8 r, where the tile's run has one; with NoMap the tile needs no run.
  template <class Map>
  __device__ void Add(const Tile& tile, const __half* keys, const __half* values, const Map& map) {
    const int lane = threadIdx.x % 32;
    float s[kTile / 8][4];
#pragma unroll
    for (int n = 0; n < kTile / 8; ++n) {
      s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll
      for (int k = 0; k < kSteps; k += 2) {
        const int t = n * 8 + lane % 8, c = k * 2 + lane / 8;
        uint32_t m[4];
        LoadMatrices(SharedAddress(keys + t * kDim + (c ^ (t % 8)) * 8), m);
        MultiplyAdd(s[n], q[k], m[0], m[1]);
        MultiplyAdd(s[n], q[k + 1], m[2], m[3]);
      }
    }
    if constexpr (!std::is_same<Map, NoMap>::value) {
      if (!tile.run->map.identity()) {
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
      const float base = top == -INFINITY ? 0 : top, rescale = Exp2(max[r] - base);
      max[r] = top;
      sum[r] *= rescale;
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) {
        out[d][2 * r] *= rescale;
        out[d][2 * r + 1] *= rescale;
      }
#pragma unroll
      for (int n = 0; n < kTile / 8; ++n) {
        sum[r] += s[n][2 * r] = Exp2(s[n][2 * r] - base);
        sum[r] += s[n][2 * r + 1] = Exp2(s[n][2 * r + 1] - base);
      }
    }
#pragma unroll
    for (int k = 0; k < kTile / 16; ++k) {
      const uint32_t p[4] = {Pack(s[2 * k][0], s[2 * k][1]), Pack(s[2 * k][2], s[2 * k][3]),
                             Pack(s[2 * k + 1][0], s[2 * k + 1][1]),
                             Pack(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
      for (int d = 0; d < kDim / 8; d += 2) {
        const int t = k * 16 + lane % 16, c = d + lane / 16;
        uint32_t m[4];
        LoadMatricesTransposed(SharedAddress(values + t * kDim + (c ^ (t % 8)) * 8), m);
        MultiplyAdd(out[d], p, m[0], m[1]);
        MultiplyAdd(out[d + 1], p, m[2], m[3]);
      }
    }
  }
};

// Takes units until there are none: by all kThreads threads of a block, with PrefillSharedBytes of
// dynamic shared memory.
template <int kDim>
__device__ void TakePrefillUnits(const PagedArgs& args) {
  extern __shared__ __align__(128) __half shared[];
  __shared__ int next_unit;
  const auto keys = [](int buffer) { return shared + buffer * kTile * kDim; };
  const auto values = [](int buffer) { return shared + (2 + buffer) * kTile * kDim; };
  const int kv_heads = args.kv.geometry.kv_heads, lane = threadIdx.x % 32;
  const int units = args.plan.prefill_begin[args.sequences] * kv_heads;
  const int64_t row_floats = int64_t{args.heads + 2 * kv_heads} * kDim;
  while (true) {
    __syncthreads();
    if (threadIdx.x == 0) next_unit = atomicAdd(&args.plan.next[1], 1);
    __syncthreads();
    if (next_unit >= units) return;
    const PrefillUnit unit(args, units - 1 - next_unit);  // the last rows see most: first

    WarpRows<kDim> warp;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int i = unit.first + threadIdx.x / 32 * 16 + lane / 4 + r * 8;
      const bool there = i < unit.queries;
      warp.limit[r] = there ? unit.Limit(i) : 0;
      warp.max[r] = -INFINITY;
      warp.sum[r] = 0;
      const float* q = args.qkv + unit.Row(i) * row_floats + unit.Head(i) * kDim;
      const float scale = args.scale * 1.44269504088896341f;
#pragma unroll
      for (int k = 0; k < kDim / 8; ++k) {
        float2 v = {0, 0};
        if (there) v = *reinterpret_cast<const float2*>(q + k * 8 + lane % 4 * 2);
        warp.q[k / 2][k % 2 * 2 + r] = Pack(v.x * scale, v.y * scale);
      }
    }
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      warp.out[d][0] = warp.out[d][1] = warp.out[d][2] = warp.out[d][3] = 0;
    }

    Tiles tiles(args, unit.s, unit.Limit(min(unit.first + kPrefillRows, unit.queries) - 1));
    Tile tile, following;
    bool more = tiles.Next(&tile);
    FetchTile<kDim>(args, unit.kv_head, tile, keys(0), values(0));
    for (int buffer = 0; more; buffer ^= 1, tile = following) {
      WaitCopies();
      __syncthreads();  // the tile is there, and nobody computes on the other one any more
      more = tiles.Next(&following);
      if (more) {
        FetchTile<kDim>(args, unit.kv_head, following, keys(buffer ^ 1), values(buffer ^ 1));
      }
      warp.Add(tile, keys(buffer), values(buffer), [&](int r) {
        const int row = threadIdx.x / 32 * 16 + lane / 4 + r * 8;
        const int i = min(unit.first + row, unit.queries - 1);
        AffineMap map = args.maps[unit.Row(i) * args.heads + unit.Head(i)];
        map.shift *= 1.44269504088896341f;
        return map;
      });
    }

    warp.Finish(args.Transformed(unit.s));
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int i = unit.first + threadIdx.x / 32 * 16 + lane / 4 + r * 8;
      if (i >= unit.queries) continue;
      float* out = args.out + (unit.Row(i) * args.heads + unit.Head(i)) * kDim;
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) {
        *reinterpret_cast<float2*>(out + d * 8 + lane % 4 * 2) = {warp.out[d][2 * r],
                                                                  warp.out[d][2 * r + 1]};
      }
    }
  }
}

}  // namespace tessera::cuda
