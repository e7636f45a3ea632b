// The operations of kernels/statistics_ops.h on the device, except those of low_pass.h and
// rank_tokens.h. The kernels are simple, since they run once per prompt (or for a few of its rows)
// and only for policies that need them.
#pragma once

#include "kernels/cuda/common/workspace.h"
#include "kernels/ops.h"

namespace tessera::cuda {

void RowPeaks(cudaStream_t stream, const float* x, const int32_t* from_row, int64_t rows,
              int64_t cols, int64_t top, float* peaks, float* medians);

// Heads and rows add to a column in any order. REQUIRES: head_dim <= 256.
void AttentionColumns(cudaStream_t stream, const float* qkv, const int32_t* query_begin,
                      const ColumnJob* jobs, int64_t num_jobs, int64_t heads, const KvLayerView& kv,
                      float* columns);

}  // namespace tessera::cuda
