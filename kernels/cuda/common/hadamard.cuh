// The Walsh-Hadamard transform of ops.h by one warp, in the order of float operations that ops.h
// states.
#pragma once

#include <cstdint>

namespace tessera::cuda {

constexpr bool CanTransform(int dim) { return dim > 0 && dim <= 256 && (dim & (dim - 1)) == 0; }

__device__ inline float HadamardScale(int dim) {
  return static_cast<float>(1 / sqrt(static_cast<double>(dim)));
}

// Transforms x[0 .. dim) with kLane consecutive elements per lane. dim is a power of two. Each
// group of dim / kLane lanes holds its own copy of the vector. All lanes of the warp must call it.
template <int kLane>
__device__ void HadamardInLanes(float (&x)[kLane], int dim) {
#pragma unroll
  for (int step = 1; step < kLane; step *= 2) {
#pragma unroll
    for (int i = 0; i < kLane; ++i) {
      if (i & step) continue;
      const float a = x[i], b = x[i + step];
      x[i] = __fadd_rn(a, b);
      x[i + step] = __fsub_rn(a, b);
    }
  }
  const int lane = threadIdx.x % 32;
  for (int step = 1; step * kLane < dim; step *= 2) {
#pragma unroll
    for (int i = 0; i < kLane; ++i) {
      const float other = __shfl_xor_sync(~0u, x[i], step);
      x[i] = lane & step ? __fsub_rn(other, x[i]) : __fadd_rn(x[i], other);
    }
  }
  const float scale = HadamardScale(dim);
#pragma unroll
  for (int i = 0; i < kLane; ++i) x[i] = __fmul_rn(x[i], scale);
}

template <int kLane>
__device__ void HadamardInMemory(float* x, int dim) {
  const int first = threadIdx.x % 32 * kLane;
  float v[kLane];
#pragma unroll
  for (int i = 0; i < kLane; ++i) v[i] = first < dim ? x[first + i] : 0;
  HadamardInLanes(v, dim);
#pragma unroll
  for (int i = 0; i < kLane; ++i) {
    if (first < dim) x[first + i] = v[i];
  }
}

// Transforms x[dim] in place, in memory that the whole warp can access. REQUIRES:
// CanTransform(dim).
__device__ inline void WarpHadamard(float* x, int dim) {
  if (dim <= 32) {
    HadamardInMemory<1>(x, dim);
  } else if (dim == 64) {
    HadamardInMemory<2>(x, dim);
  } else if (dim == 128) {
    HadamardInMemory<4>(x, dim);
  } else {
    HadamardInMemory<8>(x, dim);
  }
}

}  // namespace tessera::cuda
