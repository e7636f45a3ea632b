// The vision tower's attention on Hopper's warpgroups: as vit_tensor.cu, but with wgmma.
#include <algorithm>

#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/attention/prefill/warpgroup_rows.cuh"
#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/halves.cuh"

namespace tessera::cuda {
namespace {

// A block has one head of one image, whose K and V fit into shared memory as halves. A producer
// warpgroup loads them once. kGroups consumer warpgroups take 64 queries each, repeatedly. With few
// images, several blocks divide a head's queries.
constexpr int kDim = 64, kGroups = 2, kGroupRows = 64, kBlock = kThreads + kGroups * 128;
constexpr int kTileHalves = kTile * kDim;
constexpr int kMaxTiles = 14;

int SharedBytes(int tiles) { return tiles * (2 * kTileHalves * 2 + 2 * 8); }

struct VitArgs {
  const float* qkv;  // [images, tokens, 3, heads, kDim]
  float* out;        // [images, tokens, heads, kDim]
  int tokens, heads, tiles;
  float scale;
};

// One head of one image, and its tiles in shared memory.
struct VitHead {
  int64_t stride, to_value;
  const float* q;
  const float* k;
  float* out;
  __half *keys, *values;
  uint64_t *keys_full, *values_full;  // [tiles]

  __device__ VitHead(const VitArgs& args, uint8_t* shared)
      : stride(int64_t{3} * args.heads * kDim), to_value(int64_t{args.heads} * kDim) {
    const int head = blockIdx.y;
    q = args.qkv + int64_t{blockIdx.z} * args.tokens * stride + head * kDim;
    k = q + to_value;
    out = args.out + (int64_t{blockIdx.z} * args.tokens * args.heads + head) * kDim;
    keys = reinterpret_cast<__half*>(shared);
    values = keys + args.tiles * kTileHalves;
    keys_full = reinterpret_cast<uint64_t*>(values + args.tiles * kTileHalves);
    values_full = keys_full + args.tiles;
  }
};

__device__ uint4 Halves(const float (&x)[8]) {
  alignas(16) __half h[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) h[i] = ToHalf(x[i]);
  return *reinterpret_cast<const uint4*>(h);
}

// Loads the tiles one after the other, with zeros after the last token.
__device__ void ProduceTiles(const VitArgs& args, const VitHead& head) {
  constexpr int kPieces = kDim / 8, kEach = kTile * kPieces / kThreads, kAtOnce = 4;
  for (int tile = 0; tile < args.tiles; ++tile) {
#pragma unroll 1
    for (int i = 0; i < kEach; i += kAtOnce) {
      float x[kAtOnce][2][8] = {};
      const int piece = threadIdx.x % kPieces, row = i * kThreads / kPieces + threadIdx.x / kPieces;
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        const int t = tile * kTile + row + j * kThreads / kPieces;
        if (t >= args.tokens) continue;
        const float* from = head.k + t * head.stride + piece * 8;
        LoadFloats(from, x[j][0]);
        LoadFloats(from + head.to_value, x[j][1]);
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        const int to = tile * kTileHalves + TileOffset(row + j * kThreads / kPieces, piece);
        *reinterpret_cast<uint4*>(head.keys + to) = Halves(x[j][0]);
        *reinterpret_cast<uint4*>(head.values + to) = Halves(x[j][1]);
      }
    }
    FenceAsyncProxy();
    __syncwarp();
    if (threadIdx.x % 32 == 0) {
      Arrive(&head.keys_full[tile]);
      Arrive(&head.values_full[tile]);
    }
  }
}

__device__ void ConsumeQueries(const VitArgs& args, const VitHead& head) {
  const int group = threadIdx.x / 128 - 1;
  const int row = threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
  const auto tile = [&](int t) {
    return Tile{nullptr, 0, t * kTile, min(kTile, args.tokens - t * kTile), false};
  };
  WarpgroupRows<kDim> rows;
  float logits[2][kTile / 8][4] = {};
  for (int block = group * gridDim.x + blockIdx.x; block * kGroupRows < args.tokens;
       block += kGroups * gridDim.x) {
    const int first = block * kGroupRows + row;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int i = first + r * 8;
      rows.Init(r, i < args.tokens ? head.q + i * head.stride : nullptr, args.scale, args.tokens);
    }
    const auto keys = [&](int t) { return head.keys + t * kTileHalves; };
    const auto values = [&](int t) { return head.values + t * kTileHalves; };
    const auto added = [] {};  // tiles stay loaded
    // Computes one tile and returns whether it was the last.
    const auto take = [&](int t, float(&s)[kTile / 8][4], float(&next)[kTile / 8][4]) {
      const auto ready = [&] { WaitBarrier(&head.values_full[t], 0); };
      if (t + 1 == args.tiles) {
        rows.End(tile(t), s, values(t), NoMap(), ready, added);
        return true;
      }
      WaitBarrier(&head.keys_full[t + 1], 0);
      rows.Step(tile(t), s, values(t), keys(t + 1), next, NoMap(), ready, added);
      return false;
    };
    WaitBarrier(&head.keys_full[0], 0);
    rows.Begin(logits[0], keys(0));
    for (int t = 0;; t += 2) {
      if (take(t, logits[0], logits[1]) || take(t + 1, logits[1], logits[0])) break;
    }
    rows.Finish(false);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int i = first + r * 8;
      if (i < args.tokens) rows.Store(r, head.out + int64_t{i} * args.heads * kDim);
    }
  }
}

__global__ void __launch_bounds__(BlockBound(kBlock), 1) WarpgroupVitKernel(VitArgs args) {
  if constexpr (kHasWarpgroups) {
    extern __shared__ __align__(1024) uint8_t shared[];
    const VitHead head(args, shared);
    if (threadIdx.x == 0) {
      for (int i = 0; i < 2 * args.tiles; ++i) InitBarrier(&head.keys_full[i], kThreads / 32);
      FenceBarrierInit();
    }
    __syncthreads();
    if (threadIdx.x < kThreads) {
      ProduceTiles(args, head);
    } else {
      ConsumeQueries(args, head);
    }
  }
}

}  // namespace

bool WarpgroupVitAttention(cudaStream_t stream, const float* qkv, int64_t images, int64_t tokens,
                           int64_t heads, int64_t dim, float* out) {
  const int64_t tiles = CeilDiv<int64_t>(tokens, kTile);
  if (dim != kDim || tiles > kMaxTiles || !HasKernel(WarpgroupVitKernel, kBlock)) return false;
  const VitArgs args = {qkv,
                        out,
                        static_cast<int>(tokens),
                        static_cast<int>(heads),
                        static_cast<int>(tiles),
                        1.44269504088896341f / sqrtf(static_cast<float>(dim))};
  int device = 0, multiprocessors = 0;
  TESSERA_CUDA_CHECK(cudaGetDevice(&device));
  TESSERA_CUDA_CHECK(
      cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
  const int64_t shares =
      std::clamp<int64_t>(multiprocessors / (images * heads), 1, CeilDiv<int64_t>(tiles, kGroups));
  const dim3 grid(static_cast<unsigned>(shares), static_cast<unsigned>(heads),
                  static_cast<unsigned>(images));
  TESSERA_CUDA_CHECK(cudaFuncSetAttribute(
      WarpgroupVitKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, SharedBytes(kMaxTiles)));
  WarpgroupVitKernel<<<grid, kBlock, SharedBytes(args.tiles), stream>>>(args);
  TESSERA_CUDA_CHECK_LAUNCH("WarpgroupVitKernel");
  return true;
}

}  // namespace tessera::cuda
