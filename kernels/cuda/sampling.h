// What sampling does on the device; Ops::LargestLogits.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace tessera::cuda {

void LargestLogits(cudaStream_t stream, const float* logits, int64_t rows, int64_t cols,
                   const uint8_t* banned, int32_t* ids);

}  // namespace tessera::cuda
