// The statistics of kernels/statistics_ops.h on the device, but low_pass.h's: plain kernels, since
// they run once a prompt (or for a few rows of it) and only for policies that ask.
#pragma once

#include "kernels/cuda/common/workspace.h"
#include "kernels/ops.h"

namespace tessera::cuda {

void RowPeaks(cudaStream_t stream, const float* x, const int32_t* from_row, int64_t rows,
              int64_t cols, int64_t top, float* peaks, float* medians);

// Heads and rows add to a column in any order. head_dim at most 256.
void AttentionColumns(cudaStream_t stream, const float* qkv, const int32_t* query_begin,
                      const ColumnJob* jobs, int64_t num_jobs, int64_t heads, const KvLayerView& kv,
                      float* columns);

}  // namespace tessera::cuda
