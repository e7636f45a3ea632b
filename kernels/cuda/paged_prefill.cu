#include <cuda_fp16.h>

#include <climits>

#include "kernels/cuda/check.h"
#include "kernels/cuda/paged_plan.cuh"
#include "kernels/cuda/paged_units.cuh"

namespace tessera::cuda {
namespace {

// A block of four warps takes 64 queries of one KV head, 16 a warp, and runs over the sequence's
// tokens in tiles of 64, two of them in shared memory: one is computed on, one is on its way.
constexpr int kWarps = 4, kThreads = kWarps * 32, kTile = 64, kPage = PageTokens(Format::kRaw16);
static_assert(kPrefillRows == kWarps * 16);

__device__ uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// 16 bytes from global to shared memory; zeros if not `there`.
__device__ void CopyAsync(uint32_t to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(there ? 16 : 0));
}
__device__ void CommitCopies() { asm volatile("cp.async.commit_group;"); }
template <int kLeft>
__device__ void WaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft));
}

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

// c[16, 8] += a[16, 16] b[16, 8], half operands, float sums.
__device__ void MultiplyAdd(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ uint32_t Pack(float a, float b) {
  const __half2 h = __floats2half2_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&h);
}

// Up to kTile tokens of one run, whose first page is pages[0].
struct Tile {
  const PageId* pages;
  int first, tokens;  // first: counted over the sequence
};

// The tiles of a sequence that begin before `end`, in order.
class Tiles {
 public:
  __device__ Tiles(const PagedArgs& args, int s, int end)
      : kv_(args.kv), run_(args.kv.run_begin[s]), end_(end) {}
  __device__ bool Next(Tile* tile) {
    if (first_ + at_ >= end_) return false;
    const KvRun run = kv_.runs[run_];
    *tile = {kv_.pages + run.first_page + at_ / kPage, first_ + at_, min(kTile, run.tokens - at_)};
    at_ += kTile;
    if (at_ >= run.tokens) {
      first_ += run.tokens;
      at_ = 0;
      ++run_;
    }
    return true;
  }

 private:
  const KvLayerView& kv_;
  int run_, end_, first_ = 0, at_ = 0;
};

// Begins to copy a tile's K and V rows of one head. Row t's 16-byte piece c lies at c ^ (t % 8), so
// that the eight rows of a matrix lie in different banks.
template <int kDim>
__device__ void CopyTile(const uint8_t* head, const Tile& tile, __half* keys, __half* values) {
  constexpr int kPieces = kDim / 8;
#pragma unroll
  for (int i = 0; i < kTile * kPieces / kThreads; ++i) {
    const int at = i * kThreads + threadIdx.x, t = at / kPieces, c = at % kPieces;
    const bool there = t < tile.tokens;
    const uint8_t* from =
        there ? head + tile.pages[t / kPage] * kPageUnitBytes + (t % kPage) * kDim * 2 + c * 16
              : head;
    const int to = t * kDim + (c ^ (t % 8)) * 8;
    CopyAsync(SharedAddress(keys + to), from, there);
    CopyAsync(SharedAddress(values + to), from + (there ? Raw16Offset(kDim, 0, true, 0) : 0),
              there);
  }
}

template <int kDim>
struct WarpRows {
  static constexpr int kSteps = kDim / 16;
  uint32_t q[kSteps][4];
  float out[kDim / 8][4];
  float max[2], sum[2];  // of rows lane / 4 and lane / 4 + 8; sums of this lane's columns only
  int limit[2];

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
      const float base = top == -INFINITY ? 0 : top, rescale = exp2f(max[r] - base);
      max[r] = top;
      sum[r] *= rescale;
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) {
        out[d][2 * r] *= rescale;
        out[d][2 * r + 1] *= rescale;
      }
#pragma unroll
      for (int n = 0; n < kTile / 8; ++n) {
        sum[r] += s[n][2 * r] = exp2f(s[n][2 * r] - base);
        sum[r] += s[n][2 * r + 1] = exp2f(s[n][2 * r + 1] - base);
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
__global__ void __launch_bounds__(kThreads) TensorPrefillKernel(PagedArgs args) {
  extern __shared__ __align__(128) __half shared[];
  __shared__ int next_unit;
  __half* const keys[2] = {shared, shared + kTile * kDim};
  __half* const values[2] = {shared + 2 * kTile * kDim, shared + 3 * kTile * kDim};
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

    const uint8_t* head = args.kv.arena + Raw16Offset(kDim, unit.kv_head, false, 0);
    Tiles tiles(args, unit.s, unit.Limit(min(unit.first + kPrefillRows, unit.queries) - 1));
    Tile tile, following;
    bool more = tiles.Next(&tile);
    CopyTile<kDim>(head, tile, keys[0], values[0]);
    CommitCopies();
    for (int buffer = 0; more; buffer ^= 1, tile = following) {
      more = tiles.Next(&following);
      if (more) CopyTile<kDim>(head, following, keys[buffer ^ 1], values[buffer ^ 1]);
      CommitCopies();
      WaitCopies<1>();
      __syncthreads();
      warp.Add(tile, keys[buffer], values[buffer]);
      __syncthreads();
    }

#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int i = unit.first + threadIdx.x / 32 * 16 + lane / 4 + r * 8;
      float sum = warp.sum[r];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      if (i >= unit.queries) continue;
      float* out = args.out + (unit.Row(i) * args.heads + unit.Head(i)) * kDim;
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) {
        *reinterpret_cast<float2*>(out + d * 8 + lane % 4 * 2) = {warp.out[d][2 * r] / sum,
                                                                  warp.out[d][2 * r + 1] / sum};
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
  kernel<<<blocks * multiprocessors, kThreads, kSharedBytes, stream>>>(args);
  TESSERA_CUDA_CHECK_LAUNCH("TensorPrefillKernel");
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
