// Converts between halves and floats on the device.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace tessera::cuda {

// Saturates as FloatToHalf (base/half.h); NaN stays NaN.
__device__ inline __half ToHalf(float x) {
  if (fabsf(x) > 65504.0f) x = copysignf(65504.0f, x);
  return __float2half_rn(x);
}

__device__ inline void ToFloats(const uint4& halves, float (&out)[8]) {
  const __half2* h = reinterpret_cast<const __half2*>(&halves);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 f = __half22float2(h[i]);
    out[2 * i] = f.x;
    out[2 * i + 1] = f.y;
  }
}

__device__ inline void LoadFloats(const float* from, float (&out)[8]) {
  const float4 a = reinterpret_cast<const float4*>(from)[0];
  const float4 b = reinterpret_cast<const float4*>(from)[1];
  out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
  out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
}

}  // namespace tessera::cuda
