// Prefill with mma.sync: several query rows of a sequence, over pages of any format, in half
// precision with float sums; head dims 64 and 128.
#pragma once

#include "kernels/cuda/attention/prefill/tensor_rows.cuh"

namespace tessera::cuda {
// A block of four warps takes 64 queries of one KV head, 16 per warp. It iterates over the
// sequence's tokens in tiles of 64. Shared memory has two tiles: one is computed on while the other
// is loaded.
constexpr int kPrefillRows = kThreads / 32 * 16;  // args.prefill_queries
constexpr int PrefillSharedBytes(int dim) { return 4 * kTile * dim * 2; }

// Computes S = Q K^T, online softmax, O += P V over one tile. map(r) returns row r's logit map, if
// the tile's run has one; with NoMap no run has one.
template <int kDim, class Map>
__device__ void AddTile(const Tile& tile, const __half* keys, const __half* values, const Map& map,
                        WarpRows<kDim>& rows) {
  const int lane = threadIdx.x % 32;
  float s[kTile / 8][4];
#pragma unroll
  for (int n = 0; n < kTile / 8; ++n) {
    s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll
    for (int k = 0; k < rows.kSteps; k += 2) {
      uint32_t m[4];
      LoadMatrices(SharedAddress(keys + TileOffset(n * 8 + lane % 8, k * 2 + lane / 8)), m);
      MultiplyAdd(s[n], rows.q[k], m[0], m[1]);
      MultiplyAdd(s[n], rows.q[k + 1], m[2], m[3]);
    }
  }
  float rescale[2];
  rows.UpdateSoftmax(tile, map, s, rescale);
  rows.Rescale(rescale);
#pragma unroll
  for (int k = 0; k < kTile / 16; ++k) {
    uint32_t p[4];
    rows.PackWeights(s, k, p);
#pragma unroll
    for (int d = 0; d < kDim / 8; d += 2) {
      uint32_t m[4];
      LoadMatricesTransposed(SharedAddress(values + TileOffset(k * 16 + lane % 16, d + lane / 16)),
                             m);
      MultiplyAdd(rows.out[d], p, m[0], m[1]);
      MultiplyAdd(rows.out[d + 1], p, m[2], m[3]);
    }
  }
}

// Runs work items until none is left. All kThreads threads of a block call it, with
// PrefillSharedBytes of dynamic shared memory.
template <int kDim>
__device__ void RunPrefillWork(const PagedArgs& args) {
  extern __shared__ __align__(128) __half shared[];
  __shared__ int next_work;
  const auto keys = [](int buffer) { return shared + buffer * kTile * kDim; };
  const auto values = [](int buffer) { return shared + (2 + buffer) * kTile * kDim; };
  const int items = args.plan.prefill_begin[args.sequences] * args.kv.geometry.kv_heads;
  while (true) {
    __syncthreads();
    if (threadIdx.x == 0) next_work = atomicAdd(&args.plan.next[1], 1);
    __syncthreads();
    if (next_work >= items) return;
    const PrefillWork work(args, items - 1 - next_work);  // last rows first: they see most tokens
    const int first = work.first + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
    WarpRows<kDim> rows;
    rows.Init(args, work, first);

    Tiles tiles(args, work.s, work.Limit(min(work.first + kPrefillRows, work.queries) - 1));
    Tile tile, following;
    bool more = tiles.Next(&tile);
    FetchTile<kDim>(args, work.kv_head, tile, keys(0), values(0), threadIdx.x);
    for (int buffer = 0; more; buffer ^= 1, tile = following) {
      WaitCopies();
      __syncthreads();  // this tile is loaded, and no warp reads the other any more
      more = tiles.Next(&following);
      if (more) {
        FetchTile<kDim>(args, work.kv_head, following, keys(buffer ^ 1), values(buffer ^ 1),
                        threadIdx.x);
      }
      AddTile(tile, keys(buffer), values(buffer), RowMaps{args, work, first}, rows);
    }

    rows.Finish(args.Transformed(work.s));
    rows.Store(args, work, first);
  }
}

}  // namespace tessera::cuda
