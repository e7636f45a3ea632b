// Kernels that measure a device's roofline, for benchmarks to compare with: reading a whole buffer.
// Device pointers.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "base/base.h"

namespace tessera::cuda {

// Reads `bytes` (a multiple of 16) once. `sink` is 4 bytes of device memory, which is written only
// if the exclusive or of the content has one improbable value.
void ReadAll(cudaStream_t stream, const void* from, int64_t bytes, uint32_t* sink);

// Fills `to` with n values that are uniform in [-1, 1), multiples of 1/1024, and equal for equal
// seeds.
void FillUniform(cudaStream_t stream, void* to, DType dtype, int64_t n, uint32_t seed);

}  // namespace tessera::cuda
