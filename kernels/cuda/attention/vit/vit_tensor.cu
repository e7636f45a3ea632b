#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/attention/prefill/tensor_prefill.cuh"
#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/halves.cuh"

namespace tessera::cuda {
namespace {

constexpr int kDim = 64, kWarps = 8, kQueries = kWarps * 16;
constexpr int kPieces = kDim / 8;                        // pieces of 8 channels
constexpr int kLoads = kTile * kPieces / (kWarps * 32);  // pieces of a tile's K per thread
static_assert(kTile * kPieces % (kWarps * 32) == 0, "");

// A thread's part of a tile in registers, converted from float to half.
struct StagedTile {
  uint4 keys[kLoads], values[kLoads];

  // Loads the part. `keys_at` is K of the head in the image's first token. Tokens after the last
  // are zeros.
  __device__ void Load(const float* keys_at, int64_t to_value, int64_t stride, int first,
                       int tokens) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int at = i * kWarps * 32 + threadIdx.x, t = first + at / kPieces;
      const float* from = keys_at + t * stride + at % kPieces * 8;
      keys[i] = t < tokens ? Halves(from) : uint4{0, 0, 0, 0};
      values[i] = t < tokens ? Halves(from + to_value) : uint4{0, 0, 0, 0};
    }
  }
  __device__ void Store(__half* key_tile, __half* value_tile) const {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int at = i * kWarps * 32 + threadIdx.x;
      const int to = TileOffset(at / kPieces, at % kPieces);
      *reinterpret_cast<uint4*>(key_tile + to) = keys[i];
      *reinterpret_cast<uint4*>(value_tile + to) = values[i];
    }
  }

 private:
  __device__ static uint4 Halves(const float* from) {
    float x[8];
    LoadFloats(from, x);
    __half h[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) h[i] = ToHalf(x[i]);
    return *reinterpret_cast<const uint4*>(h);
  }
};

// A block has kQueries queries of one head of one image, 16 per warp. It iterates over all tokens
// in tiles. Shared memory has two tiles: one is computed on while the next is loaded.
__global__ void __launch_bounds__(kWarps * 32, 2)
    VitKernel(const float* qkv, int tokens, int heads, float scale, float* out) {
  __shared__ __align__(128) __half shared[4 * kTile * kDim];
  const auto keys = [](int buffer) { return shared + buffer * kTile * kDim; };
  const auto values = [](int buffer) { return shared + (2 + buffer) * kTile * kDim; };
  const int lane = threadIdx.x % 32, head = blockIdx.y;
  const int64_t to_value = int64_t{heads} * kDim, stride = 3 * to_value;
  qkv += int64_t{blockIdx.z} * tokens * stride + head * kDim;
  out += (int64_t{blockIdx.z} * tokens * heads + head) * kDim;
  const int warp_first = blockIdx.x * kQueries + threadIdx.x / 32 * 16;
  const int first = warp_first + lane / 4;

  WarpRows<kDim> rows;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int i = first + r * 8;
    rows.Init(r, i < tokens ? qkv + i * stride : nullptr, scale, tokens);
  }

  StagedTile staged;
  staged.Load(qkv + to_value, to_value, stride, 0, tokens);
  for (int begin = 0, buffer = 0; begin < tokens; begin += kTile, buffer ^= 1) {
    staged.Store(keys(buffer), values(buffer));
    __syncthreads();  // this tile is stored, and no warp reads the other any more
    if (begin + kTile < tokens) {
      staged.Load(qkv + to_value, to_value, stride, begin + kTile, tokens);
    }
    const Tile tile = {nullptr, 0, begin, min(kTile, tokens - begin), false};
    if (warp_first < tokens) AddTile(tile, keys(buffer), values(buffer), NoMap(), rows);
  }

  rows.Finish(false);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int i = first + r * 8;
    if (i < tokens) rows.Store(r, out + int64_t{i} * heads * kDim);
  }
}

}  // namespace

bool HasTensorVitAttention(int64_t dim) { return dim == kDim; }

void TensorVitAttention(cudaStream_t stream, const float* qkv, int64_t images, int64_t tokens,
                        int64_t heads, int64_t dim, float* out) {
  TESSERA_CHECK(HasTensorVitAttention(dim));
  if (images == 0 || tokens == 0) return;
  if (WarpgroupVitAttention(stream, qkv, images, tokens, heads, dim, out)) return;
  const dim3 grid(static_cast<unsigned>(CeilDiv<int64_t>(tokens, kQueries)),
                  static_cast<unsigned>(heads), static_cast<unsigned>(images));
  // The softmax is in base 2: log2 e is multiplied into q with the scale.
  const float scale = 1.44269504088896341f / sqrtf(static_cast<float>(dim));
  VitKernel<<<grid, kWarps * 32, 0, stream>>>(qkv, static_cast<int>(tokens),
                                              static_cast<int>(heads), scale, out);
  TESSERA_CUDA_CHECK_LAUNCH("VitKernel");
}

}  // namespace tessera::cuda
