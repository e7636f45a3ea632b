// The scalar reference of the operations in statistics_ops.h: their formulas with sums in double.
// Part of the reference backend (reference.h).
#pragma once

#include "kernels/ops.h"

namespace tessera {

void ReferenceRowPeaks(const float* x, const int32_t* from_row, int64_t rows, int64_t cols,
                       int64_t top, float* peaks, float* medians);

void ReferenceLowPassResiduals(const uint8_t* arena, const KvGeometry& geometry,
                               const PageId* pages, int64_t layer_pages,
                               const LowPassSegment& segment, int64_t out_tokens, float* out);

void ReferenceRankTokens(const float* residuals, const uint8_t* vision, int64_t layers,
                         int64_t tokens, int32_t* ranks, double* sums);

void ReferenceAttentionColumns(const float* qkv, const int32_t* query_begin, const ColumnJob* jobs,
                               int64_t num_jobs, int64_t heads, const KvLayerView& kv,
                               float* columns);

}  // namespace tessera
