// The scalar truth of the operations in statistics_ops.h: their formulas, sums in double. Part of
// the reference backend (reference.h).
#pragma once

#include "kernels/ops.h"

namespace tessera {

void ReferenceRowPeaks(const float* x, const int32_t* from_row, int64_t rows, int64_t cols,
                       int64_t top, float* peaks, float* medians);

void ReferenceLowPassResiduals(const uint8_t* arena, const KvGeometry& geometry,
                               const PageId* pages, int64_t layer_pages, int64_t first,
                               int64_t tokens, int64_t kept, float* out);

void ReferenceAttentionColumns(const float* qkv, const int32_t* query_begin, const ColumnJob* jobs,
                               int64_t num_jobs, int64_t heads, const KvLayerView& kv,
                               float* columns);

}  // namespace tessera
