// Interpolates from points to tokens, and computes the tokens' distances from their bases
// (grid.cuh).
#include <algorithm>

#include "kernels/cuda/common/check.h"
#include "kernels/cuda/low_pass/tiles.cuh"

namespace tessera::cuda {
namespace {

constexpr int kStages = 2;
constexpr int kPartColumns = 512;  // channels whose distances one block sums up

// The kernel of InterpolateDistances. filtered [2, rows, columns] is laid out as folded. partial is
// [layers, 2 * parts, tokens, 2]: kPartColumns channels each, K and V alternating. A warp computes
// the bases of one fragment of tokens and of its mirror image. Dynamic shared memory: kStages times
// tiles of both sides' tokens, then tiles of `tile_rows` points (a multiple of 16) of both
// parities. The body exceeds 60 lines: its registers are shared by all steps.
template <int kSteps>
__global__ void __launch_bounds__(kTileThreads)
    InterpolateKernel(LowPassJob job, Grid grid, Fragments weights, const __half* filtered,
                      const float* means, int layer0, int tile_rows, float* partial) {
  extern __shared__ __align__(128) __half stages[];
  constexpr int kTokens = kFragmentWarps * kFragment, kPasses = kTokens / Copier::kRows;
  const int stage_halves = (2 * kTokens + 2 * tile_rows) * kTileColumns;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first_fragment = blockIdx.y * kFragmentWarps;
  const int fragment = min(first_fragment + warp, weights.count - 1);
  const int base = grid.FirstPoint(first_fragment), own = grid.FirstPoint(fragment) - base;
  const int layer = layer0 + static_cast<int>(blockIdx.z) / 2, channels = job.channels();
  const int64_t columns = int64_t{gridDim.z} * channels;
  const int begin = blockIdx.x * kPartColumns, end = min(begin + kPartColumns, channels);
  Copier copier;
  int64_t offsets[kPasses][2];  // of tokens in the arena; a missing token uses the first
#pragma unroll
  for (int i = 0; i < kPasses; ++i) {
    const int t = first_fragment * kFragment + i * Copier::kRows + copier.row;
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const int at = job.first + (t >= job.tokens ? 0 : side == 0 ? t : job.tokens - 1 - t);
      const PageId id = job.pages[int64_t{layer} * job.layer_pages + at / Copier::kPage];
      offsets[i][side] =
          int64_t{id} * kPageUnitBytes + at % Copier::kPage * int64_t{job.geometry.head_dim} * 2;
    }
  }
  const __half* points[2];
#pragma unroll
  for (int parity = 0; parity < 2; ++parity) {
    points[parity] = filtered + (int64_t{parity} * grid.rows() + base + copier.row) * columns +
                     int64_t{blockIdx.z} * channels + copier.piece * 8;
  }
  const auto copy = [&](int chunk) {
    const int channel0 = begin + chunk * kTileColumns;
    if (channel0 < end) {
      copier.Columns(job, channel0, blockIdx.z % 2 != 0);
      uint32_t to = SharedAddress(stages + chunk % kStages * stage_halves + copier.place);
#pragma unroll
      for (int side = 0; side < 2; ++side) {
#pragma unroll
        for (int i = 0; i < kPasses; ++i, to += Copier::kPass * 2) {
          CopyAsync(to, copier.from + offsets[i][side], copier.there);
        }
      }
#pragma unroll
      for (int parity = 0; parity < 2; ++parity) {
        const __half* from = points[parity] + channel0;
        for (int row = copier.row; row < tile_rows; row += Copier::kRows) {
          CopyAsync(to, from, copier.there && base + row < grid.rows());
          from += Copier::kRows * columns;
          to += Copier::kPass * 2;
        }
      }
    }
    CommitCopies();
  };

  uint32_t a[kSteps][4];
#pragma unroll
  for (int step = 0; step < kSteps; ++step) weights.Get(fragment, step, a[step]);
  const float* mean = means + (layer * 2 + blockIdx.z % 2) * channels;
  float distance[2][2] = {}, norm[2][2] = {};  // side, row
  for (int chunk = 0; chunk < kStages - 1; ++chunk) copy(chunk);
  for (int chunk = 0; begin + chunk * kTileColumns < end; ++chunk) {
    copy(chunk + kStages - 1);
    WaitCopiesBut<kStages - 1>();
    __syncthreads();
    const __half* tile = stages + chunk % kStages * stage_halves;
    const uint32_t tokens_at = MatricesAt(tile, warp * kFragment);
    const uint32_t points_at = MatricesAt(tile + 2 * kTokens * kTileColumns, own);
#pragma unroll
    for (int n = 0; n < kTileColumns / 8; n += 2) {
      float bases[2][2][4];  // even and odd coefficients, 8 channels each
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int channel = begin + chunk * kTileColumns + (n + i) * 8 + lane % 4 * 2;
        const float2 m =
            channel < channels ? *reinterpret_cast<const float2*>(mean + channel) : float2{0, 0};
        bases[0][i][0] = bases[0][i][2] = m.x, bases[0][i][1] = bases[0][i][3] = m.y;
        bases[1][i][0] = bases[1][i][1] = bases[1][i][2] = bases[1][i][3] = 0;
      }
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
#pragma unroll
        for (int parity = 0; parity < 2; ++parity) {
          uint32_t b[4];
          LoadMatricesTransposed(
              (points_at ^ n * 16) + (parity * tile_rows + step * kFragment) * kTileColumns * 2, b);
          MultiplyAdd(bases[parity][0], a[step], b[0], b[1]);
          MultiplyAdd(bases[parity][1], a[step], b[2], b[3]);
        }
      }
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        uint32_t x[4];  // groups of 8 channels of rows lane / 4 and lane / 4 + 8
        LoadMatrices((tokens_at ^ n * 16) + side * kTokens * kTileColumns * 2, x);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int r = i % 2;
          const float2 v = __half22float2(*reinterpret_cast<const __half2*>(&x[i]));
          const float *even = &bases[0][i / 2][r * 2], *odd = &bases[1][i / 2][r * 2];
          const float d0 = v.x - (side == 0 ? even[0] + odd[0] : even[0] - odd[0]);
          const float d1 = v.y - (side == 0 ? even[1] + odd[1] : even[1] - odd[1]);
          distance[side][r] = fmaf(d0, d0, fmaf(d1, d1, distance[side][r]));
          norm[side][r] = fmaf(v.x, v.x, fmaf(v.y, v.y, norm[side][r]));
        }
      }
    }
    __syncthreads();
  }
  const int64_t part = (int64_t{layer} * 2 * gridDim.x + blockIdx.x * 2 + blockIdx.z % 2);
#pragma unroll
  for (int side = 0; side < 2; ++side) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float2 sums = {distance[side][r], norm[side][r]};
#pragma unroll
      for (int off = 1; off < 4; off *= 2) {
        sums.x += __shfl_xor_sync(~0u, sums.x, off);
        sums.y += __shfl_xor_sync(~0u, sums.y, off);
      }
      const int t = (first_fragment + warp) * kFragment + r * 8 + lane / 4;
      const int mirror = job.tokens - 1 - t;
      if (lane % 4 != 0 || t > mirror || (side == 1 && t == mirror)) continue;
      *reinterpret_cast<float2*>(partial + (part * job.tokens + (side == 0 ? t : mirror)) * 2) =
          sums;
    }
  }
}

}  // namespace

int InterpolatedParts(const LowPassJob& job) { return CeilDiv(job.channels(), kPartColumns); }

void InterpolateDistances(const LowPassJob& job, const Grid& grid, const Fragments& weights,
                          const __half* filtered, const float* means, int layer0, int layers,
                          float* partial, cudaStream_t stream) {
  TESSERA_CHECK(weights.steps <= 3);
  const auto kernel = weights.steps == 1   ? InterpolateKernel<1>
                      : weights.steps == 2 ? InterpolateKernel<2>
                                           : InterpolateKernel<3>;
  // The points from the first fragment's first to the last fragment's first, and the last's own.
  constexpr int kTokens = kFragmentWarps * kFragment;
  const auto reach = static_cast<int>(int64_t{kTokens - kFragment} * grid.points / grid.tokens) + 2;
  const int tile_rows =
      (CeilDiv(std::min(reach, grid.half()), kFragment) + weights.steps) * kFragment;
  const int shared = kStages * 2 * (kTokens + tile_rows) * kTileColumns * 2;
  TESSERA_CUDA_CHECK(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
  const dim3 all(InterpolatedParts(job), CeilDiv(weights.count, kFragmentWarps), 2 * layers);
  kernel<<<all, kTileThreads, shared, stream>>>(job, grid, weights, filtered, means, layer0,
                                                tile_rows, partial);
  TESSERA_CUDA_CHECK_LAUNCH("InterpolateKernel");
}

}  // namespace tessera::cuda
