#include <cuda_fp16.h>

#include <climits>

#include "kernels/cuda/add_tokens.cuh"
#include "kernels/cuda/check.h"
#include "kernels/cuda/overlap.cuh"
#include "kernels/cuda/paged_plan.cuh"
#include "kernels/cuda/paged_units.cuh"
#include "kernels/cuda/tensor_codes.cuh"

namespace tessera::cuda {
namespace {

// A block of four warps takes 64 queries of one KV head, 16 a warp, and runs over the sequence's
// tokens in tiles of 64, two of them in shared memory: one is computed on, one is on its way.
constexpr int kWarps = 4, kThreads = kWarps * 32, kTile = 64;
static_assert(kPrefillRows == kWarps * 16);

__device__ uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// 16 bytes from global to shared memory; zeros if not `there`.
__device__ void CopyAsync(uint32_t to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(there ? 16 : 0));
}
__device__ void WaitCopies() { asm volatile("cp.async.wait_all;"); }

__device__ void LoadMatrices(uint32_t from, uint32_t (&m)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(from));
}
__device__ void LoadMatricesTransposed(uint32_t from, uint32_t (&m)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(from));
}

// Up to kTile tokens of one run, whose first page is pages[0]; kTile is whole pages of any format.
struct Tile {
  Format format;
  const PageId* pages;
  int first, tokens;  // first: counted over the sequence
};

// The tiles of a sequence that begin before `end`, in order.
class Tiles {
 public:
  __device__ Tiles(const PagedArgs& args, int s, int end)
      : args_(args), run_(args.kv.runs + args.kv.run_begin[s]), end_(end) {}
  __device__ bool Next(Tile* tile) {
    if (first_ + at_ >= end_) return false;
    const KvRun run = *run_;
    const int page = args_.formats[static_cast<int>(run.format)].tokens;
    *tile = {run.format, args_.kv.pages + run.first_page + at_ / page, first_ + at_,
             min(kTile, run.tokens - at_)};
    at_ += kTile;
    if (at_ >= run.tokens) {
      first_ += run.tokens;
      at_ = 0;
      ++run_;
    }
    return true;
  }

 private:
  const PagedArgs& args_;
  const KvRun* run_;
  int end_, first_ = 0, at_ = 0;
};

// Begins to copy a tile's K and V rows of one head, or unpacks them, rounded to half. Row t's
// 16-byte piece c lies at c ^ (t % 8), so that the eight rows of a matrix lie in different banks.
template <int kDim>
__device__ void CopyTile(const PagedArgs& args, int head, const Tile& tile, __half* keys,
                         __half* values) {
  constexpr int kPieces = kDim / 8;
  const PageParts& parts = args.formats[static_cast<int>(tile.format)];
  const bool raw = tile.format == Format::kRaw16;
#pragma unroll
  for (int i = 0; i < kTile * kPieces / kThreads; ++i) {
    const int at = i * kThreads + threadIdx.x, t = at / kPieces, c = at % kPieces;
    const bool there = t < tile.tokens;
    const uint8_t* from = args.kv.arena + int64_t{head} * parts.head_bytes;
    if (there) from += tile.pages[t / parts.tokens] * kPageUnitBytes;
    const int slot = t % parts.tokens, to = t * kDim + (c ^ (t % 8)) * 8;
#pragma unroll
    for (int value = 0; value < 2; ++value) {
      __half* row = (value == 0 ? keys : values) + to;
      const PagePart& part = parts.part[value];
      if (raw) {
        CopyAsync(SharedAddress(row),
                  from + (there ? part.codes + slot * part.row_bytes + c * 16 : 0), there);
        continue;
      }
      float x[8] = {};
      if (there) LoadCodes(from, part, slot, c, x);
      *reinterpret_cast<uint4*>(row) = {Pack(x[0], x[1]), Pack(x[2], x[3]), Pack(x[4], x[5]),
                                        Pack(x[6], x[7])};
    }
  }
}

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

  // S = Q K^T, online softmax in base 2, O += P V over one tile.
  __device__ void Add(const Tile& tile, const __half* keys, const __half* values) {
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

template <int kDim>
__global__ void __launch_bounds__(kThreads, 2) TensorPrefillKernel(PagedArgs args) {
  WaitForEarlierKernels();
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
    CopyTile<kDim>(args, unit.kv_head, tile, keys(0), values(0));
    for (int buffer = 0; more; buffer ^= 1, tile = following) {
      WaitCopies();
      __syncthreads();  // the tile is there, and nobody computes on the other one any more
      more = tiles.Next(&following);
      if (more) {
        CopyTile<kDim>(args, unit.kv_head, following, keys(buffer ^ 1), values(buffer ^ 1));
      }
      warp.Add(tile, keys(buffer), values(buffer));
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

template <int kDim>
void Launch(cudaStream_t stream, const PagedArgs& args, int multiprocessors) {
  constexpr int kSharedBytes = 4 * kTile * kDim * 2;
  const auto kernel = TensorPrefillKernel<kDim>;
  TESSERA_CUDA_CHECK(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
  int blocks = 0;
  TESSERA_CUDA_CHECK(
      cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, kThreads, kSharedBytes));
  LaunchOverlapped<PagedArgs>(kernel, blocks * multiprocessors, kThreads, kSharedBytes, stream,
                              args);
}

}  // namespace

void LaunchTensorPrefill(cudaStream_t stream, const PagedArgs& args, int multiprocessors) {
  TESSERA_CHECK(HasTensorPrefill(args.kv.geometry.head_dim));
  if (args.kv.geometry.head_dim == 64) {
    Launch<64>(stream, args, multiprocessors);
  } else {
    Launch<128>(stream, args, multiprocessors);
  }
}

}  // namespace tessera::cuda
