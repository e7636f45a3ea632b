// Ops::SampleTokens on the device.
//
// One block per row. Weights are integer multiples of 2^-40 of the most probable token's weight, so
// sums are exact and the result does not depend on the order of additions. A token below half of
// that unit is never sampled. The thresholds of top-k and top-p are found by searching in the order
// of the logits' bits, sixteen parts at a time, with passes over the row, which stays in the L2
// cache.
#pragma once

#include <cuda_runtime.h>

#include "kernels/ops.h"

namespace tessera::cuda {

void SampleTokens(cudaStream_t stream, const float* logits, int64_t rows, int64_t cols,
                  const uint8_t* banned, const SampleRule* rules, int32_t* ids);

}  // namespace tessera::cuda
