// Spreads tokens to points (grid.cuh).
#include "kernels/cuda/common/check.h"
#include "kernels/cuda/low_pass/tiles.cuh"

namespace tessera::cuda {
namespace {

constexpr int kMeanTokens = 64, kMeanThreads = 512;
constexpr int kRows = 32, kStages = 3;  // tokens per stage of the copy to shared memory

// The kernel of ChannelMeans.
__global__ void MeansKernel(LowPassJob job, float* means) {
  __shared__ float of_group[kMeanThreads];
  const int dim = job.geometry.head_dim, groups = kMeanThreads / dim;
  const int group = threadIdx.x / dim, channel = threadIdx.x % dim;
  const int head = blockIdx.x, layer = blockIdx.y, value = blockIdx.z;
  const int stride = CeilDiv(job.tokens, kMeanTokens), count = CeilDiv(job.tokens, stride);
  float sum = 0;
  if (group < groups) {
#pragma unroll 8
    for (int n = group; n < count; n += groups) {
      sum += __half2float(job.Row(layer, head, value != 0, n * stride)[channel]);
    }
  }
  of_group[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x >= dim) return;
  for (int g = 1; g < groups; ++g) sum += of_group[g * dim + channel];
  means[(layer * 2 + value) * job.channels() + head * dim + channel] =
      sum / static_cast<float>(count);
}

// The kernel of SpreadTokens; columns = gridDim.z * channels. A warp computes one fragment of
// points and its mirror image, from tokens and their mirror images, whose weights are the same. The
// body exceeds 60 lines: its registers are shared by all steps.
__global__ void __launch_bounds__(kTileThreads)
    SpreadKernel(LowPassJob job, Grid grid, GridWeights all, const float* means, int layer0,
                 __half* folded) {
  const Fragments& weights = all.spread;
  constexpr int kSide = kRows * kTileColumns;
  __shared__ __align__(128) __half ring[kStages][2][kSide];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first_fragment = blockIdx.x * kFragmentWarps, fragment = first_fragment + warp;
  const int last_fragment = min(first_fragment + kFragmentWarps, weights.count) - 1;
  const int first = grid.FirstToken(first_fragment);
  const int tokens = grid.FirstToken(last_fragment) + weights.steps * kFragment - first;
  const int own = (grid.FirstToken(fragment) - first) / kFragment;
  const int layer = layer0 + static_cast<int>(blockIdx.z) / 2, channels = job.channels();
  Copier copier;
  copier.Columns(job, blockIdx.y * kTileColumns, blockIdx.z % 2 != 0);
  // A thread's rows are whole pages apart on both sides, so they have the same place in each page.
  const PageId* pages = job.pages + int64_t{layer} * job.layer_pages;
  const int token = job.first + first + copier.row, row_bytes = job.geometry.head_dim * 2;
  const int mirror = job.first + job.tokens - 1 - first - copier.row;
  const uint8_t* from[2] = {copier.from + token % Copier::kPage * row_bytes,
                            copier.from + mirror % Copier::kPage * row_bytes};
  const int page[2] = {token / Copier::kPage, mirror / Copier::kPage};
  const auto copy = [&](int chunk) {
    if (chunk * kRows < tokens) {
#pragma unroll
      for (int i = 0; i < kRows / Copier::kRows; ++i) {
        const int pass = chunk * (kRows / Copier::kRows) + i;
        const bool in = first + pass * Copier::kRows + copier.row < job.tokens;
#pragma unroll
        for (int side = 0; side < 2; ++side) {
          const PageId id = in ? pages[side == 0 ? page[0] + pass : page[1] - pass] : 0;
          CopyAsync(SharedAddress(ring[chunk % kStages][side] + copier.place + i * Copier::kPass),
                    from[side] + int64_t{id} * kPageUnitBytes, in && copier.there);
        }
      }
    }
    CommitCopies();
  };

  float sums[2][kTileColumns / 8][4] = {};
  for (int chunk = 0; chunk < kStages - 1; ++chunk) copy(chunk);
  for (int chunk = 0; chunk * kRows < tokens; ++chunk) {
    WaitCopiesBut<kStages - 2>();
    __syncthreads();  // this chunk is loaded, and the one before it is no longer read
    copy(chunk + kStages - 1);
    const uint32_t at = MatricesAt(ring[chunk % kStages][0], 0);
#pragma unroll
    for (int k = 0; k < kRows / kFragment; ++k) {
      const int step = chunk * (kRows / kFragment) + k - own;
      if (step < 0 || step >= weights.steps || fragment >= weights.count) continue;
      uint32_t a[4];
      weights.Get(fragment, step, a);
#pragma unroll
      for (int side = 0; side < 2; ++side) {
#pragma unroll
        for (int n = 0; n < kTileColumns / 8; n += 2) {
          uint32_t b[4];
          LoadMatricesTransposed((at ^ n * 16) + (side * kSide + k * kFragment * kTileColumns) * 2,
                                 b);
          MultiplyAdd(sums[side][n], a, b[0], b[1]);
          MultiplyAdd(sums[side][n + 1], a, b[2], b[3]);
        }
      }
    }
  }
  __syncthreads();
  if (fragment >= weights.count) return;

  // Stores through shared memory, so that whole rows are written.
  __half* tile = &ring[0][0][0] + warp * 2 * kFragment * kTileColumns;
  const int channel0 = blockIdx.y * kTileColumns;
  const float* mean = means + (layer * 2 + blockIdx.z % 2) * channels;
#pragma unroll
  for (int n = 0; n < kTileColumns / 8; ++n) {
    const int channel = channel0 + n * 8 + lane % 4 * 2;
    const float2 m =
        channel < channels ? *reinterpret_cast<const float2*>(mean + channel) : float2{0, 0};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = lane / 4 + r * 8;
      const float w = all.spread_sums[fragment * kFragment + row];
      const float *x = &sums[0][n][r * 2], *y = &sums[1][n][r * 2];
      const int at = Swizzled(row, n) + lane % 4 * 2;
      *reinterpret_cast<uint32_t*>(tile + at) =
          Pack(0.5f * (x[0] + y[0]) - w * m.x, 0.5f * (x[1] + y[1]) - w * m.y);
      *reinterpret_cast<uint32_t*>(tile + kFragment * kTileColumns + at) =
          Pack(0.5f * (x[0] - y[0]), 0.5f * (x[1] - y[1]));
    }
  }
  __syncwarp();
  const int64_t columns = int64_t{gridDim.z} * channels;
  for (int i = lane; i < 2 * kFragment * Copier::kPieces; i += 32) {
    const int parity = i / (kFragment * Copier::kPieces), row = i / Copier::kPieces % kFragment;
    const int channel = channel0 + i % Copier::kPieces * 8, point = fragment * kFragment + row;
    if (point >= grid.half() || channel >= channels) continue;
    *reinterpret_cast<uint4*>(folded + (int64_t{parity} * grid.half() + point) * columns +
                              blockIdx.z * channels + channel) =
        *reinterpret_cast<const uint4*>(tile + parity * kFragment * kTileColumns +
                                        Swizzled(row, i % Copier::kPieces));
  }
}

}  // namespace

void ChannelMeans(const LowPassJob& job, float* means, cudaStream_t stream) {
  const dim3 all(job.geometry.kv_heads, job.geometry.layers, 2);
  MeansKernel<<<all, kMeanThreads, 0, stream>>>(job, means);
  TESSERA_CUDA_CHECK_LAUNCH("MeansKernel");
}

void SpreadTokens(const LowPassJob& job, const Grid& grid, const GridWeights& weights,
                  const float* means, int layer0, int layers, __half* folded, cudaStream_t stream) {
  const dim3 all(CeilDiv(weights.spread.count, kFragmentWarps),
                 CeilDiv(job.channels(), kTileColumns), 2 * layers);
  SpreadKernel<<<all, kTileThreads, 0, stream>>>(job, grid, weights, means, layer0, folded);
  TESSERA_CUDA_CHECK_LAUNCH("SpreadKernel");
}

}  // namespace tessera::cuda
