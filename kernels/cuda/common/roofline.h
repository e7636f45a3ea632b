// What a device can do at best, for benchmarks to compare with: reading all of a buffer.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "base/base.h"

namespace tessera::cuda {

// Reads `bytes` (a multiple of 16) once; `sink`: 4 bytes of device memory, written only if the
// content's exclusive or has one improbable value.
void ReadAll(cudaStream_t stream, const void* from, int64_t bytes, uint32_t* sink);

// n values uniform in [-1, 1), a multiple of 1/1024, the same for the same seed.
void FillUniform(cudaStream_t stream, void* to, DType dtype, int64_t n, uint32_t seed);

}  // namespace tessera::cuda
