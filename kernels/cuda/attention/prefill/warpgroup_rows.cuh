// Query rows in warpgroups of 64, with wgmma. While the softmax of one tile is computed, the tensor
// cores add the values of the tile before and compute the logits of the tile after.
#pragma once

#include "kernels/cuda/attention/prefill/tensor_rows.cuh"
#include "kernels/cuda/attention/prefill/warpgroup.cuh"

namespace tessera::cuda {

template <int kDim>
struct WarpgroupRows : WarpRows<kDim> {
  using Rows = WarpRows<kDim>;
  using Logits = float[kTile / 8][4];
  uint32_t weights[kTile / 16][4];  // weights of the tile whose values are being added

  // Computes the logits of the first tile.
  __device__ void Begin(Logits& s, const __half* keys) {
    MakeLogits(s, keys);
    WaitProducts<0>();
    Pin(s);
  }
  // Starts to add the tile with logits s, and computes the logits `next` of the tile after it.
  // `ready()` waits for the values. `added()` is called as soon as the warp no longer reads the
  // values of the tile before.
  template <class Map, class Ready, class Added>
  __device__ void Step(const Tile& tile, Logits& s, const __half* values, const __half* next_keys,
                       Logits& next, const Map& map, const Ready& ready, const Added& added) {
    MakeLogits(next, next_keys);
    AddValues<1>(tile, s, values, map, ready, added);
    WaitProducts<1>();
    Pin(next);
  }
  // Adds the last tile and waits for all products.
  template <class Map, class Ready, class Added>
  __device__ void End(const Tile& tile, Logits& s, const __half* values, const Map& map,
                      const Ready& ready, const Added& added) {
    AddValues<0>(tile, s, values, map, ready, added);
    WaitProducts<0>();
    Pin(Rows::out);
    Pin(weights);
  }

 private:
  __device__ void MakeLogits(Logits& s, const __half* keys) {
    const uint64_t matrix = TileMatrix(keys);
    Pin(s);
    BeginProducts();
#pragma unroll
    for (int k = 0; k < Rows::kSteps; ++k) {
      MultiplyGroup<false>(s, Rows::q[k], ChannelStep(matrix, k), k > 0);
    }
    CommitProducts();
  }
  // kPending is the number of commits after that of the previous values.
  template <int kPending, class Map, class Ready, class Added>
  __device__ void AddValues(const Tile& tile, Logits& s, const __half* values, const Map& map,
                            const Ready& ready, const Added& added) {
    const uint64_t matrix = TileMatrix(values);
    float rescale[2];
    Rows::UpdateSoftmax(tile, map, s, rescale);
    // The wait for the values keeps ptxas from waiting for the products before the softmax.
    Pin(s);
    ready();
    WaitProducts<kPending>();
    Pin(Rows::out);
    Pin(weights);
    added();
    Rows::Rescale(rescale);
#pragma unroll
    for (int k = 0; k < kTile / 16; ++k) Rows::PackWeights(s, k, weights[k]);
    Pin(Rows::out);
    Pin(weights);
    BeginProducts();
#pragma unroll
    for (int k = 0; k < kTile / 16; ++k) {
      MultiplyGroup<true>(Rows::out, weights[k], TokenStep(matrix, k), true);
    }
    CommitProducts();
  }
};

}  // namespace tessera::cuda
