// K and the queries as inputs of the tensor cores: the layout of a lane's part of K's rows in its
// registers, and queries in the matching order and scale (tensor_pages.cuh).
#pragma once

#include "kernels/cuda/attention/paged/tensor_codes.cuh"
#include "kernels/cuda/common/halves.cuh"
#include "kernels/layout/page_layout.h"

namespace tessera::cuda {

// The layout of the quarter row of K that a lane holds.
template <int kBits, int kDim>
struct KeyRow {
  static constexpr int kBytes = kDim * kBits / 8 / 4, kWords = (kBytes + 3) / 4;
  static constexpr int kPairs = kDim / 8;  // half2s
  static constexpr int kFields =
      kBytes < 4 ? 8 * kBytes / kBits / 2 : 16 / kBits;  // half2s per word
  // Contiguous channels of the lane: 16 bytes of them, or all.
  static constexpr int kSegment = kBytes < 16 ? kDim / 4 : 128 / kBits;
  // Returns the channel of the lane's number l, 0 <= l < kDim / 4.
  __device__ static int Channel(int l) {
    return (l / kSegment * 4 + static_cast<int>(threadIdx.x % 4)) * kSegment + l % kSegment;
  }
  // half2 number i has the lane's channels Low(i) and High(i), and their p (tensor_codes.cuh) is
  // Bit(i).
  __host__ __device__ static constexpr int Low(int i) {
    return i / kFields * 2 * kFields + i % kFields;
  }
  __host__ __device__ static constexpr int High(int i) { return Low(i) + kFields; }
  __host__ __device__ static constexpr int Bit(int i) { return Codes<kBits>::Bit(i % kFields); }

  uint32_t word[kWords];

  __device__ void Load(const uint8_t* row) {
    const int t = threadIdx.x % 4;
    if constexpr (kBytes <= 16) {
      LoadWords<kBytes>(row + t * kBytes, word);
      // If there are two bytes, each half of the word gets one.
      if constexpr (kBytes == 2) word[0] = __byte_perm(word[0], 0, 0x4140);
    } else {
#pragma unroll
      for (int i = 0; i < kWords; i += 4) {
        uint32_t part[4];
        LoadWords<16>(row + (i + t) * 16, part);
#pragma unroll
        for (int k = 0; k < 4; ++k) word[i + k] = part[k];
      }
    }
  }
  __device__ uint32_t Half2(int i) const {
    return Codes<kBits>::Half2(word[i / kFields], i % kFields);
  }
};

// The halves at the lane's channels of a row of kDim halves, as half2s in the order of KeyRow.
template <int kBits, int kDim>
struct KeyMeta {
  using Row = KeyRow<kBits, kDim>;
  uint32_t word[kDim / 8];
  __device__ void Load(const __half* from) {
#pragma unroll
    for (int l = 0; l < kDim / 4; l += 8) {
      const uint4 v = *reinterpret_cast<const uint4*>(from + Row::Channel(l));
      word[l / 2] = v.x, word[l / 2 + 1] = v.y, word[l / 2 + 2] = v.z, word[l / 2 + 3] = v.w;
    }
  }
  __device__ uint32_t Half2(int i) const {
    const int low = Row::Low(i), high = Row::High(i);
    return __byte_perm(word[low / 2], word[high / 2], low % 2 == 0 ? 0x5410 : 0x7632);
  }
};

__device__ inline uint32_t Multiply2(uint32_t a, uint32_t b) {
  const __half2 h =
      __hmul2(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b));
  return *reinterpret_cast<const uint32_t*>(&h);
}

// The queries as inputs for K of one format. Each query is scaled by a power of two, so that its
// size loses no bits of a half: to at most 2^15, or, if K's scales are multiplied in, to at most 1.
template <Format kFormat, int kDim>
struct TensorQueries {
  static constexpr Codec kKey = CodecOf(kFormat, false);
  static constexpr bool kPerChannel = kKey.axis == Axis::kChannel;
  using Row = KeyRow<kKey.bits, kDim>;
  uint32_t q[Row::kPairs];  // query g
  float unit[2], sum[2];    // queries 2 t, 2 t + 1: value of a product's unit; sum of q

  // Loads the lane's query g from `from`, if it exists. `scale` is the softmax's, times log2 e.
  __device__ void Load(bool there, const float* from, float scale) {
    float x[kDim / 4];
#pragma unroll
    for (int l = 0; l < kDim / 4; l += 4) {
      float4 v = {0, 0, 0, 0};
      if (there) v = *reinterpret_cast<const float4*>(from + Row::Channel(l));
      x[l] = v.x, x[l + 1] = v.y, x[l + 2] = v.z, x[l + 3] = v.w;
    }
    float top = 0;
#pragma unroll
    for (float v : x) top = fmaxf(top, fabsf(v));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
    // top is in [1, 2) 2^(exponent - 127). Values far beyond any model's range count as its end.
    const int exponent = min(max(static_cast<int>(__float_as_uint(top) >> 23), 64), 190);
    constexpr int kTop = kPerChannel ? -1 : 14;
    const float up = __uint_as_float(static_cast<uint32_t>(254 + kTop - exponent) << 23);
    float total = 0;
#pragma unroll
    for (int i = 0; i < Row::kPairs; ++i) {
      // The factor 2^-p stays within the remaining sixteen bits of range. If K's scales are
      // multiplied in, it is applied after them.
      constexpr bool kNow = !kPerChannel && kKey.bits < 16;
      const float down =
          kNow ? __uint_as_float(static_cast<uint32_t>(127 - Row::Bit(i)) << 23) : 1.0f;
      const __half2 h = __floats2half2_rn(x[Row::Low(i)] * up * down, x[Row::High(i)] * up * down);
      q[i] = *reinterpret_cast<const uint32_t*>(&h);
      const float2 f = __half22float2(h);
      total += (f.x + f.y) * (1 / down);
    }
    total += __shfl_xor_sync(~0u, total, 1);
    total += __shfl_xor_sync(~0u, total, 2);
    const float worth = scale * __uint_as_float(static_cast<uint32_t>(exponent - kTop) << 23);
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      unit[e] = __shfl_sync(~0u, worth, (2 * t + e) * 4);
      sum[e] = __shfl_sync(~0u, total, (2 * t + e) * 4) * unit[e];
    }
  }
};

}  // namespace tessera::cuda
