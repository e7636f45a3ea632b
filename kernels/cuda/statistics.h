// The statistics of kernels/statistics_ops.h on the device: plain kernels, since they run once a
// prompt (or for a few rows of it) and only for policies that ask.
#pragma once

#include "kernels/cuda/workspace.h"
#include "kernels/ops.h"

namespace tessera::cuda {

void RowPeaks(cudaStream_t stream, const float* x, const int32_t* from_row, int64_t rows,
              int64_t cols, int64_t top, float* peaks, float* medians);

// The base as a sum over all tokens with the weights of the low-pass projector,
// h[x - y] + h[x + y + 1] (cpu/statistics.h has h): tokens^2 products a channel. `workspace` takes
// the table of h and the sums of single heads. head_dim at most 256.
void LowPassResiduals(cudaStream_t stream, Workspace& workspace, const uint8_t* arena,
                      const KvGeometry& geometry, const PageId* pages, int64_t layer_pages,
                      int64_t first, int64_t tokens, int64_t kept, float* out);

// Heads and rows add to a column in any order. head_dim at most 256.
void AttentionColumns(cudaStream_t stream, const float* qkv, const int32_t* query_begin,
                      const ColumnJob* jobs, int64_t num_jobs, int64_t heads, const KvLayerView& kv,
                      float* columns);

}  // namespace tessera::cuda
