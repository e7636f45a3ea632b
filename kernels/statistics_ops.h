// The operations that measure what a forward pass computes, for KV policies that ask for it: the
// part of Ops that no answer depends on unless a policy reads it (cache/policy/policy.h,
// PolicyNeeds).
//
// Conventions are those of ops.h. Statistics decide which tokens are kept, so they must be as
// independent of the schedule as answers are: on the CPU backends every result has the same bits
// however a prompt is cut into chunks and whatever else is in the batch.
#pragma once

#include <cstdint>

#include "kernels/layout/page_layout.h"

namespace tessera {

struct KvLayerView;  // ops.h

// Query rows whose attention weights are wanted: rows [first_row, first_row + rows) of the batch,
// all of sequence `sequence`. `columns` is where that sequence's sums begin, in floats.
struct ColumnJob {
  int32_t sequence;
  int32_t first_row;
  int32_t rows;
  int64_t columns;
};

// A stretch of a prompt with a DCT of its own, `kept` of whose coefficients make its base.
struct LowPassSegment {
  int32_t first, tokens, kept;
};

class StatisticsOps {
 public:
  virtual ~StatisticsOps() = default;

  // For i < rows and r = from_row[i]: peaks[i, 0 .. top) are the largest |x[r, :]| of x[.., cols],
  // descending; medians[i] is the lower median of |x[r, :]|, element (cols - 1) / 2 of them in
  // ascending order. Exact on every backend. `medians` is null: not wanted. 1 <= top <= cols. With
  // a NaN in the row its results are unspecified.
  virtual void RowPeaks(const float* x, const int32_t* from_row, int64_t rows, int64_t cols,
                        int64_t top, float* peaks, float* medians) = 0;

  // How far stored tokens lie from a smooth signal. In every layer, each channel of K and V of
  // the segment's tokens of a RAW16 run is a signal along the tokens; its base keeps the first
  // `kept` of its `tokens` coefficients of the orthonormal DCT-II. pages [layers, layer_pages] are
  // the runs' pages; of out [layers, out_tokens, 4] the segment's tokens are written: summed over
  // heads and channels, |k - base|^2, |v - base|^2, |k|^2, |v|^2. 1 <= kept <= tokens.
  virtual void LowPassResiduals(const uint8_t* arena, const KvGeometry& geometry,
                                const PageId* pages, int64_t layer_pages,
                                const LowPassSegment& segment, int64_t out_tokens, float* out) = 0;

  // What selectors read of residuals [layers, tokens, 4] as above. ranks [layers, tokens]: how many
  // tokens of its layer come before a token, in the order of their deviations |k - base|^2 +
  // |v - base|^2 from the largest (ScoreOrder, score_order.h), of equal ones from the earlier.
  // sums [layers, 2, 4], in double: of residuals over the tokens t where vision[t] is 0, and over
  // the others. Ranks are exact on every backend. At most 256 layers of 2^24 tokens.
  virtual void RankTokens(const float* residuals, const uint8_t* vision, int64_t layers,
                          int64_t tokens, int32_t* ranks, double* sums) = 0;

  // Adds attention weights up: for every row of a job, in order, and every head, in order,
  // columns[job.columns + t] += softmax(q k^T / sqrt(head_dim))[t] for the tokens t that the row
  // sees, counted over the sequence's runs. qkv, query_begin and causality as for PagedAttention,
  // which reads the same rows. REQUIRES: the runs of the sequences named are RAW16.
  virtual void AttentionColumns(const float* qkv, const int32_t* query_begin, const ColumnJob* jobs,
                                int64_t num_jobs, int64_t heads, const KvLayerView& kv,
                                float* columns) = 0;
};

}  // namespace tessera
