// The maps of logits (LogitMap) that attention applies: for each query row and head the affine map
// that the logits over all mapped runs of its sequence give. K of those runs is read once for it,
// and once more by the attention itself.
#pragma once

#include "kernels/cuda/attention/paged/paged_plan.cuh"

namespace tessera::cuda {

// maps [rows, heads]; rows of sequences without a map are left as they are. Adds the number of maps
// whose slope was clamped at 0 to *clamped, device memory. args: query_begin,
// sequences, heads, group, scale, kv, formats, qkv. head_dim at most 256.
void FindLogitMaps(cudaStream_t stream, const PagedArgs& args, int64_t rows, AffineMap* maps,
                   unsigned long long* clamped);

}  // namespace tessera::cuda
