// Finds the logit maps (LogitMap) that attention applies: for each query row and head, the affine
// map that follows from the logits over all mapped runs of its sequence. It reads K of those runs
// once; the attention itself reads it again.
#pragma once

#include "kernels/cuda/attention/paged/paged_plan.cuh"

namespace tessera::cuda {

// Computes maps [rows, heads] and leaves rows of sequences without a map unchanged. Adds the number
// of maps whose slope was clamped to 0 to *clamped (device memory). Reads these args: query_begin,
// sequences, heads, group, scale, kv, formats, qkv. REQUIRES: head_dim <= 256.
void FindLogitMaps(cudaStream_t stream, const PagedArgs& args, int64_t rows, AffineMap* maps,
                   unsigned long long* clamped);

}  // namespace tessera::cuda
