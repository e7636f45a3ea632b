// The accumulators of a warp in tensor-core attention, for pages of any formats.
#pragma once

#include "kernels/cuda/attention/paged/tensor_codes.cuh"

namespace tessera::cuda {

// Sums of up to eight queries; this lane has queries 2 t and 2 t + 1.
template <int kDim>
struct TensorSums {
  static constexpr int kTiles = kDim / 16;  // tiles of channels
  // acc[j][e] is query 2 t + e, channel j of the lane's kDim / 8; acc[j][2 + e] is channel j +
  // kTiles.
  float acc[kTiles][4];
  float max[2], sum[2], offset[2];  // base 2; `sum` and `offset`: of this lane's tokens only

  __device__ void Clear() {
#pragma unroll
    for (auto& a : acc) a[0] = a[1] = a[2] = a[3] = 0;
#pragma unroll
    for (int e = 0; e < 2; ++e) max[e] = -INFINITY, sum[e] = offset[e] = 0;
  }
  // Multiplies acc by 2^(sign (p - 24)) for the codes of a format.
  template <int kBits>
  __device__ void Rescale(int sign) {
    if constexpr (kBits < 16) {
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int channel = j + (i / 2) * kTiles, p = Codes<kBits>::Bit(channel % (16 / kBits));
          acc[j][i] *= __uint_as_float(static_cast<uint32_t>(127 + sign * (p - 24)) << 23);
        }
      }
    }
  }
  __device__ void MergeLanes() {
#pragma unroll
    for (int off = 4; off < 32; off *= 2) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        sum[e] += __shfl_xor_sync(~0u, sum[e], off);
        offset[e] += __shfl_xor_sync(~0u, offset[e], off);
      }
    }
  }
};

}  // namespace tessera::cuda
