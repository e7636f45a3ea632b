// Turns codes of low-bit pages into inputs of the tensor cores without a multiplication.
//
// A code c at bit p of a 16-bit word whose other bits are zero is the half number c 2^(p - 24), a
// subnormal, which tensor cores multiply exactly. One AND therefore makes two inputs. The factors
// 2^(p - 24) go where they cost nothing: 2^-p into the other input, or into the sum.
#pragma once

#include "kernels/cuda/common/mma.cuh"

namespace tessera::cuda {

// The two 16-bit units of a word have 16 / kBits codes each. half2 number f has code f of both.
template <int kBits>
struct Codes {
  static constexpr int kFields = 16 / kBits;
  // Returns the shift of a word that brings field f into the ten bits of a half's fraction.
  __host__ __device__ static constexpr int Shift(int f) {
    return (f + 1) * kBits <= 10 ? 0 : kBits < 4 ? 10 : 8;
  }
  // Returns p of field f.
  __host__ __device__ static constexpr int Bit(int f) { return f * kBits - Shift(f); }
  __device__ static uint32_t Half2(uint32_t word, int f) {
    const uint32_t mask = ((1u << kBits) - 1) * 0x10001u << Bit(f);
    return (word >> Shift(f)) & mask;
  }
};
// 16-bit values are already halves.
template <>
struct Codes<16> {
  static constexpr int kFields = 1;
  __host__ __device__ static constexpr int Bit(int) { return 24; }
  __device__ static uint32_t Half2(uint32_t word, int) { return word; }
};

// Loads kBytes of memory into words; 1 and 2 bytes are extended by zeros.
template <int kBytes, int kWords>
__device__ inline void LoadWords(const uint8_t* from, uint32_t (&to)[kWords]) {
  static_assert(kWords == (kBytes + 3) / 4, "");
  if constexpr (kBytes == 1) {
    to[0] = *from;
  } else if constexpr (kBytes == 2) {
    to[0] = *reinterpret_cast<const uint16_t*>(from);
  } else if constexpr (kBytes == 4) {
    to[0] = *reinterpret_cast<const uint32_t*>(from);
  } else if constexpr (kBytes == 8) {
    const uint2 v = *reinterpret_cast<const uint2*>(from);
    to[0] = v.x, to[1] = v.y;
  } else {
    static_assert(kBytes % 16 == 0, "");
#pragma unroll
    for (int i = 0; i < kWords; i += 4) {
      const uint4 v = *reinterpret_cast<const uint4*>(from + i * 4);
      to[i] = v.x, to[i + 1] = v.y, to[i + 2] = v.z, to[i + 3] = v.w;
    }
  }
}

// Returns 16-bit unit `unit` of two word arrays; the first array's is in the low half.
template <int kWords>
__device__ inline uint32_t PairUnits(const uint32_t (&a)[kWords], const uint32_t (&b)[kWords],
                                     int unit) {
  return __byte_perm(a[unit / 2], b[unit / 2], unit % 2 == 0 ? 0x5410 : 0x7632);
}

// Transposes an 8x8 matrix of halves (movmatrix). Lane l has elements 2 (l % 4) and the next of row
// l / 4.
__device__ inline uint32_t Transpose(uint32_t x) {
  uint32_t y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

// Returns 2^x with an error of at most 2 ulp; subnormal results become 0.
__device__ inline float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace tessera::cuda
