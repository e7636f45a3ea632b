// Ops::EditLogits and Ops::Logprobs on the device: the steps before and after sampling. One block
// per edited row or per job; all pointers are device memory.
#pragma once

#include <cuda_runtime.h>

#include "kernels/sampling_ops.h"

namespace tessera::cuda {

void EditLogits(cudaStream_t stream, float* logits, int64_t cols, const LogitEdit* edits, int64_t n,
                const LogitBias* biases, const TokenCount* counts, const int32_t* sampled);

void Logprobs(cudaStream_t stream, const float* logits, int64_t cols, const LogprobJob* jobs,
              int64_t n, int64_t width, const int32_t* ids, LogprobAt* out);

}  // namespace tessera::cuda
