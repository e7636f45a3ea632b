#include <cub/device/device_radix_sort.cuh>

#include "kernels/cuda/common/block_sum.cuh"
#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/workspace_layout.h"
#include "kernels/cuda/kv/rank_tokens.h"
#include "kernels/layout/score_order.h"

namespace tessera::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kSumThreads = 1024;

// The sort key: layer (8 bits), score from the largest (32), token (24). Radix sort is stable, so
// the token's bits need no pass.
constexpr int kTokenBits = 24, kLayerBits = 8;

__global__ void KeysKernel(const float* residuals, int tokens, uint64_t* keys) {
  const int t = blockIdx.x * kThreads + threadIdx.x, layer = blockIdx.y;
  if (t >= tokens) return;
  const int64_t at = int64_t{layer} * tokens + t;
  const float score = residuals[at * 4] + residuals[at * 4 + 1];
  const auto ascending = static_cast<uint32_t>(ScoreOrder(score)) ^ 0x80000000;
  keys[at] = uint64_t(layer) << (64 - kLayerBits) | uint64_t{~ascending} << kTokenBits | t;
}

__global__ void RanksKernel(const uint64_t* keys, int tokens, int32_t* ranks) {
  const int rank = blockIdx.x * kThreads + threadIdx.x;
  if (rank >= tokens) return;
  const int64_t layer = int64_t{blockIdx.y} * tokens;
  ranks[layer + (keys[layer + rank] & ((1 << kTokenBits) - 1))] = rank;
}

// One block per layer, so that the order of additions is always the same.
__global__ void SumsKernel(const float* residuals, const uint8_t* vision, int tokens,
                           double* sums) {
  const auto* rows = reinterpret_cast<const float4*>(residuals) + int64_t{blockIdx.x} * tokens;
  double own[2][4] = {};
  for (int t = threadIdx.x; t < tokens; t += kSumThreads) {
    const float4 row = rows[t];
    const float parts[4] = {row.x, row.y, row.z, row.w};
    if (vision[t] != 0) {  // a variable index would move the sums to local memory
      for (int i = 0; i < 4; ++i) own[1][i] += parts[i];
    } else {
      for (int i = 0; i < 4; ++i) own[0][i] += parts[i];
    }
  }
  for (int i = 0; i < 8; ++i) {
    const double sum = BlockSum<kSumThreads>(own[i / 4][i % 4]);
    if (threadIdx.x == 0) sums[blockIdx.x * 8 + i] = sum;
  }
}

}  // namespace

void TokenRanker::Run(const float* residuals, const uint8_t* vision, int64_t layers, int64_t tokens,
                      int32_t* ranks, double* sums) {
  TESSERA_CHECK(1 <= layers && layers <= 1 << kLayerBits);
  TESSERA_CHECK(1 <= tokens && tokens <= 1 << kTokenBits);
  const int64_t all = layers * tokens;
  const auto n = static_cast<int>(tokens);
  size_t scratch_bytes = 0;
  const auto sort = [&](void* scratch, cub::DoubleBuffer<uint64_t>& keys) {
    TESSERA_CUDA_CHECK(
        cub::DeviceRadixSort::SortKeys(scratch, scratch_bytes, keys, all, kTokenBits, 64, stream_));
  };
  cub::DoubleBuffer<uint64_t> keys(nullptr, nullptr);
  sort(nullptr, keys);  // measures the scratch memory
  const auto lay_out = [&](void* memory) {
    WorkspaceLayout layout(memory);
    auto* first = layout.Take<uint64_t>(all);
    keys = {first, layout.Take<uint64_t>(all)};
    return std::pair{layout.Take<uint8_t>(static_cast<int64_t>(scratch_bytes)), layout.bytes()};
  };
  uint8_t* scratch = lay_out(workspace_.Get(lay_out(nullptr).second)).first;

  const dim3 grid(static_cast<unsigned>(CeilDiv<int64_t>(tokens, kThreads)),
                  static_cast<unsigned>(layers));
  KeysKernel<<<grid, kThreads, 0, stream_>>>(residuals, n, keys.Current());
  TESSERA_CUDA_CHECK_LAUNCH("KeysKernel");
  sort(scratch, keys);
  RanksKernel<<<grid, kThreads, 0, stream_>>>(keys.Current(), n, ranks);
  TESSERA_CUDA_CHECK_LAUNCH("RanksKernel");
  SumsKernel<<<static_cast<unsigned>(layers), kSumThreads, 0, stream_>>>(residuals, vision, n,
                                                                         sums);
  TESSERA_CUDA_CHECK_LAUNCH("SumsKernel");
}

}  // namespace tessera::cuda
