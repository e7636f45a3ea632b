// Computes the weights of a grid (grid.cuh). Every prompt takes tens of microseconds.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/common/block_sum.cuh"
#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/mma.cuh"
#include "kernels/cuda/low_pass/grid.cuh"

namespace tessera::cuda {
namespace {

constexpr double kFiner = 1.5;  // points per coefficient
constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr int64_t kFilterBytes = int64_t{512} << 20;  // a larger filter is computed in parts
constexpr int kDistances = 4;                         // distances per block

// Returns a lane's part of a fragment's step from weight(row, column) for 16 rows and columns.
template <class Weight>
__device__ uint4 FragmentOf(const Weight& weight) {
  const int row = threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
  const auto pair = [&](int r, int c) {
    return Pack(weight(row + r, column + c), weight(row + r, column + c + 1));
  };
  return {pair(0, 0), pair(8, 0), pair(0, 8), pair(8, 8)};
}

// Computes GridWeights::spread and spread_sums. One block per fragment; its warps take steps in
// turns.
__global__ void SpreadWeightsKernel(Grid grid, int steps, uint4* out, float* sums) {
  __shared__ float of_warp[kWarps][kFragment];
  const int fragment = blockIdx.x, first = grid.FirstToken(fragment);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const float share = static_cast<float>(grid.points) / static_cast<float>(grid.tokens);
  float sum[2] = {};
  for (int step = warp; step < steps; step += kWarps) {
    out[(fragment * steps + step) * 32 + lane] = FragmentOf([&](int row, int column) {
      const int t = first + step * kFragment + column;
      const float x = t < grid.tokens ? share * grid.Weight(fragment * kFragment + row, t) : 0;
      sum[row / 8] += __half2float(__float2half_rn(x));
      return x;
    });
  }
  for (int r = 0; r < 2; ++r) {
    sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
    sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
    if (lane % 4 == 0) of_warp[warp][r * 8 + lane / 4] = sum[r];
  }
  __syncthreads();
  if (threadIdx.x >= kFragment) return;
  float all = 0;
  for (int w = 0; w < kWarps; ++w) all += of_warp[w][threadIdx.x];
  sums[fragment * kFragment + threadIdx.x] = all;
}

// Computes GridWeights::interpolate. One warp per fragment.
__global__ void InterpolateWeightsKernel(Grid grid, int steps, uint4* out) {
  const int fragment = blockIdx.x, first = grid.FirstPoint(fragment);
  for (int step = 0; step < steps; ++step) {
    out[(fragment * steps + step) * 32 + threadIdx.x] = FragmentOf([&](int row, int column) {
      const int t = fragment * kFragment + row, m = first + step * kFragment + column;
      return t < grid.tokens && m < grid.rows() ? grid.Weight(m, t) : 0;
    });
  }
}

// Computes out [2, distances]: the filter's value at distance d, for the even and the odd
// coefficients. One block per kDistances distances and parity.
__global__ void DistancesKernel(Grid grid, int distances, float* out) {
  const int d0 = blockIdx.x * kDistances, parity = blockIdx.y, period = 2 * grid.points;
  float sums[kDistances] = {};
  int turns[kDistances],
      strides[kDistances];  // argument of cos(pi k d / points): k d modulo the period
#pragma unroll
  for (int i = 0; i < kDistances; ++i) {
    turns[i] =
        static_cast<int>(int64_t{2 * static_cast<int>(threadIdx.x) + parity} * (d0 + i) % period);
    strides[i] = static_cast<int>(int64_t{2 * kThreads} * (d0 + i) % period);
  }
  for (int k = 2 * threadIdx.x + parity; k < grid.kept; k += 2 * kThreads) {
    const float gain = (k == 0 ? 0.5f : 1) * grid.Gain(k);
#pragma unroll
    for (int i = 0; i < kDistances; ++i) {
      sums[i] += gain * cospif(static_cast<float>(turns[i]) / static_cast<float>(grid.points));
      turns[i] += strides[i];
      if (turns[i] >= period) turns[i] -= period;
    }
  }
#pragma unroll
  for (int i = 0; i < kDistances; ++i) {
    const float sum = BlockSum<kThreads>(sums[i]);
    if (threadIdx.x == 0 && d0 + i < distances) {
      out[parity * distances + d0 + i] = sum * 2 / static_cast<float>(grid.points);
    }
  }
}
// Computes GridWeights::filter from `first_row` on. One block per row and parity.
__global__ void FilterKernel(Grid grid, const float* by_distance, int distances, int first_row,
                             int rows, __half* out) {
  const int m = first_row + blockIdx.x, parity = blockIdx.y;
  const float* f = by_distance + parity * distances;
  for (int i = threadIdx.x; i < grid.half(); i += kThreads) {
    out[(int64_t{parity} * rows + blockIdx.x) * grid.half() + i] =
        __float2half_rn(f[abs(m - i)] + f[m + i + 1]);
  }
}

}  // namespace

Grid::Grid(int tokens, int kept)
    : tokens(tokens), kept(kept), points(static_cast<int>(std::ceil(kFiner * kept / 16)) * 16) {
  // The window's width that leaks least beyond the grid's frequencies (Beatty et al. 2005).
  const double finer = static_cast<double>(points) / kept, width = kReach * (1 - 0.5 / finer);
  const double beta = M_PI * std::sqrt(width * width - 0.8);
  this->beta = static_cast<float>(beta);
  scale = static_cast<float>(beta / (kReach * std::sinh(beta)));
}

GridWeights::GridWeights(const Grid& grid, WorkspaceLayout& memory) {
  const double tokens_a_point = static_cast<double>(grid.tokens) / grid.points;
  spread.count = CeilDiv(grid.half(), kFragment);
  interpolate.count = CeilDiv(grid.half_tokens(), kFragment);
  // 16 points are reached by the tokens of 20 points, whose first is rounded down. 16 tokens reach
  // from their first point to their last, and kReach further.
  const int tokens = static_cast<int>(std::ceil((kFragment + 4) * tokens_a_point)) + 2;
  const int points =
      static_cast<int>(std::ceil((kFragment - 1) / tokens_a_point)) + Grid::kReach + 1;
  spread.steps = CeilDiv(tokens + kFragment - 1, kFragment);
  interpolate.steps = CeilDiv(std::min(points, grid.rows()), kFragment);
  for (Fragments* fragments : {&spread, &interpolate}) {
    fragments->at = memory.Take<uint4>(int64_t{fragments->count} * fragments->steps * 32);
  }
  spread_sums = memory.Take<float>(int64_t{spread.count} * kFragment);
  distances = memory.Take<float>(2 * int64_t{grid.points + Grid::kEdge});
  const auto fitting = static_cast<int>(kFilterBytes / (2 * int64_t{grid.half()} * 2));
  filter_rows = std::min(grid.rows(), std::max(fitting / kFragment, 1) * kFragment);
  filter = memory.Take<__half>(2 * int64_t{filter_rows} * grid.half());
}

void GridWeights::Compute(const Grid& grid, cudaStream_t stream) const {
  SpreadWeightsKernel<<<spread.count, kThreads, 0, stream>>>(grid, spread.steps, spread.at,
                                                             spread_sums);
  TESSERA_CUDA_CHECK_LAUNCH("SpreadWeightsKernel");
  InterpolateWeightsKernel<<<interpolate.count, 32, 0, stream>>>(grid, interpolate.steps,
                                                                 interpolate.at);
  TESSERA_CUDA_CHECK_LAUNCH("InterpolateWeightsKernel");
  const int count = grid.points + Grid::kEdge;
  DistancesKernel<<<dim3(CeilDiv(count, kDistances), 2), kThreads, 0, stream>>>(grid, count,
                                                                                distances);
  TESSERA_CUDA_CHECK_LAUNCH("DistancesKernel");
}

void GridWeights::ComputeFilter(const Grid& grid, int first_row, cudaStream_t stream) const {
  const int rows = std::min(filter_rows, grid.rows() - first_row);
  FilterKernel<<<dim3(rows, 2), kThreads, 0, stream>>>(grid, distances, grid.points + Grid::kEdge,
                                                       first_row, filter_rows, filter);
  TESSERA_CUDA_CHECK_LAUNCH("FilterKernel");
}

}  // namespace tessera::cuda
