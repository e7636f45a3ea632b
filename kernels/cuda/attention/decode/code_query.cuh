// Inputs of the integer tensor cores for pages of codes (code_pages.cuh): the layout of K's rows,
// and a query as integers in digits.
#pragma once

#include "kernels/cuda/attention/paged/tensor_codes.cuh"

namespace tessera::cuda {

// Compute c[16, 8] += a[16, 32] b[32, 8] with a unsigned and b signed or unsigned (mma.sync
// m16n8k32). Rows and columns are as in MultiplyAdd; a register has four neighbours of the inner
// axis.
__device__ inline void MultiplyAddSigned(int (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline void MultiplyAddUnsigned(int (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                           uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.u8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Returns the digits of four numbers below 2^24 for this lane's column. Columns 0 to 2, and again 4
// to 6, have the highest, middle and lowest byte; 3 and 7 have the byte above, which is 0.
__device__ inline uint32_t DigitsOfColumn(uint32_t v0, uint32_t v1, uint32_t v2, uint32_t v3) {
  const uint32_t column = threadIdx.x % 16 / 4, byte = column < 3 ? 2 - column : 3;
  const uint32_t pick = byte | (byte + 4) << 4;
  return __byte_perm(__byte_perm(v0, v1, pick), __byte_perm(v2, v3, pick), 0x5410);
}

// The layout of a lane's quarter of K's row in its tensor-core inputs.
template <int kBits, int kDim>
struct CodeKeys {
  static constexpr int kBytes = kDim * kBits / 32, kWords = (kBytes + 3) / 4;
  static constexpr int kOperands = kDim / 16;  // inputs of four codes each
  static constexpr int kPerByte = 8 / kBits;
  // Channel l of the quarter is code Field(l) of its byte, and byte Place(l) % 4 of input Place(l)
  // / 4. If a quarter has two bytes, its word has them twice.
  __host__ __device__ static constexpr int Field(int l) { return l % kPerByte; }
  __host__ __device__ static constexpr int Place(int l) {
    const int byte = l / kPerByte, field = Field(l);
    return kBytes >= 4 ? (byte / 4 * kPerByte + field) * 4 + byte % 4
                       : field % kOperands * 4 + byte + field / kOperands * 2;
  }
  __host__ __device__ static constexpr uint32_t Mask(int i) {
    uint32_t mask = 0;
    for (int l = 0; l < kDim / 4; ++l) {
      if (Place(l) / 4 == i) mask |= ((1u << kBits) - 1) << (Place(l) % 4 * 8 + kBits * Field(l));
    }
    return mask;
  }

  uint32_t word[kWords];

  __device__ void Load(const uint8_t* quarter) {
    LoadWords<kBytes>(quarter, word);
    if constexpr (kBytes == 2) word[0] = __byte_perm(word[0], 0, 0x1010);
  }
  __device__ uint32_t Operand(int i) const {
    return word[kBytes >= 4 ? i / kPerByte : 0] & Mask(i);
  }
};

// A warp's shared memory.
template <int kDim>
struct CodeScratch {
  uint4 weights[8];      // the page's tokens' weights
  uint32_t query[kDim];  // the query's integers, input by input
  // Sums of digits: `upper` has the highest and the middle, `lower` the lowest.
  int2 upper[kDim];
  int lower[kDim];
};

// Returns the maximum over all lanes. REQUIRES: no NaN.
__device__ inline float WarpMax(float x) {
  const auto ordered = [](int bits) { return bits ^ (bits >> 31 & 0x7fffffff); };
  return __int_as_float(ordered(__reduce_max_sync(~0u, ordered(__float_as_int(x)))));
}

template <int kBits, int kDim>
struct CodeQuery {
  using Keys = CodeKeys<kBits, kDim>;
  static constexpr int kQuarter = kDim / 4;
  uint32_t digits[Keys::kOperands];
  // The value of a product's unit for the digits of this lane, and for those of the neighbouring
  // lane: even lanes have the upper two digits, odd lanes the lowest.
  float mine, neighbour;
  float sum;  // sum of q

  // Loads a query. `scale` is the softmax's, times log2 e.
  __device__ void Load(const float* from, float scale, CodeScratch<kDim>& scratch) {
    constexpr int kMine = kDim / 32;
    const int first = threadIdx.x % 32 * kMine;
    float x[kMine], top = 1e-30f;
#pragma unroll
    for (int m = 0; m < kMine; m += 2) {
      const float2 v = *reinterpret_cast<const float2*>(from + first + m);
      x[m] = v.x, x[m + 1] = v.y;
    }
#pragma unroll
    for (float v : x) top = fmaxf(top, fabsf(v));
    top = WarpMax(top);
    // Signed digits reach from -128 to 127.
    constexpr float kLargest = 8.35e6f / (1 << (8 - kBits));
    const float up = kLargest / top;
    int total = 0;
#pragma unroll
    for (int m = 0; m < kMine; ++m) {
      const int number = __float2int_rn(x[m] * up), channel = first + m;
      total += number;
      const int larger = number * (1 << (8 - kBits - kBits * Keys::Field(channel % kQuarter)));
      scratch.query[channel / kQuarter * kQuarter + Keys::Place(channel % kQuarter)] =
          (static_cast<uint32_t>(larger) + 0x808080u) ^ 0x808080u;
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < Keys::kOperands; ++i) {
      const uint4 v =
          *reinterpret_cast<const uint4*>(scratch.query + threadIdx.x % 4 * kQuarter + 4 * i);
      digits[i] = DigitsOfColumn(v.x, v.y, v.z, v.w);
    }
    total = __reduce_add_sync(~0u, total);
    const float worth = scale * top / kLargest;
    const float unit = worth / (1 << (8 - kBits)), up_by = threadIdx.x % 2 == 0 ? 0x1p8f : 0x1p-8f;
    mine = unit * up_by, neighbour = unit * (1 / up_by);
    sum = static_cast<float>(total) * worth;
  }
};

}  // namespace tessera::cuda
