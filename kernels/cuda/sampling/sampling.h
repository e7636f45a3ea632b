// What sampling does on the device; Ops::SampleTokens.
//
// One block a row. Weights are whole multiples of 2^-40 of the most probable token's, so that sums
// are exact and a draw does not depend on the order of additions; a token below half of that is
// never sampled. Borders of top-k and top-p are searched in the order of the logits' bits, sixteen
// parts at a time, by passes over the row, which the L2 cache holds.
#pragma once

#include <cuda_runtime.h>

#include "kernels/ops.h"

namespace tessera::cuda {

void SampleTokens(cudaStream_t stream, const float* logits, int64_t rows, int64_t cols,
                  const uint8_t* banned, const SampleRule* rules, int32_t* ids);

}  // namespace tessera::cuda
