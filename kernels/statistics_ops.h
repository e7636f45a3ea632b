// The operations that compute statistics of a forward pass for KV policies: the part of Ops that
// affects an answer only if a policy reads it (cache/policy/policy.h, PolicyNeeds).
//
// Conventions are those of ops.h. Statistics decide which tokens are kept, so they must not depend
// on the schedule: on the CPU backends every result has the same bits for every division of a
// prompt into chunks and every other content of the batch.
#pragma once

#include <cstdint>

#include "kernels/layout/page_layout.h"

namespace tessera {

struct KvLayerView;  // ops.h

// The query rows whose attention weights are summed: rows [first_row, first_row + rows) of the
// batch, all of sequence `sequence`. `columns` is the offset, in floats, of that sequence's sums.
struct ColumnJob {
  int32_t sequence;
  int32_t first_row;
  int32_t rows;
  int64_t columns;
};

// A segment of a prompt that has its own DCT: `tokens` tokens from `first` on. The first `kept` DCT
// coefficients form the low-pass base.
struct LowPassSegment {
  int32_t first, tokens, kept;
};

class StatisticsOps {
 public:
  virtual ~StatisticsOps() = default;

  // Computes for i < rows and r = from_row[i]: peaks[i, 0 .. top), the largest |x[r, :]| of x[..,
  // cols], descending; and medians[i], the lower median of |x[r, :]| (element (cols - 1) / 2 in
  // ascending order). Exact on every backend. A null `medians` skips the medians. 1 <= top <= cols.
  // The results of a row with a NaN are unspecified.
  virtual void RowPeaks(const float* x, const int32_t* from_row, int64_t rows, int64_t cols,
                        int64_t top, float* peaks, float* medians) = 0;

  // Measures how far stored tokens lie from a smooth signal. In every layer, each channel of K and
  // V over the segment's tokens of a RAW16 run is a signal. Its base keeps the first `kept` of
  // `tokens` coefficients of the orthonormal DCT-II. pages [layers, layer_pages] has the runs'
  // pages. Writes the segment's tokens of out [layers, out_tokens, 4]: |k - base|^2, |v - base|^2,
  // |k|^2, |v|^2, each summed over heads and channels. 1 <= kept <= tokens.
  virtual void LowPassResiduals(const uint8_t* arena, const KvGeometry& geometry,
                                const PageId* pages, int64_t layer_pages,
                                const LowPassSegment& segment, int64_t out_tokens, float* out) = 0;

  // Reduces residuals [layers, tokens, 4] (above) to what selectors read.
  // ranks [layers, tokens]: how many tokens of the layer precede a token. The order is by deviation
  // |k - base|^2 + |v - base|^2 from the largest (ScoreOrder, score_order.h), then by position.
  // Exact on every backend.
  // sums [layers, 2, 4], in double: the residuals summed over tokens with vision[t] == 0, and over
  // the others.
  // At most 256 layers of 2^24 tokens.
  virtual void RankTokens(const float* residuals, const uint8_t* vision, int64_t layers,
                          int64_t tokens, int32_t* ranks, double* sums) = 0;

  // Accumulates attention weights. For every row of a job, in order, and every head, in order:
  // columns[job.columns + t] += softmax(q k^T / sqrt(head_dim))[t] for the tokens t that the row
  // sees, counted over the sequence's runs. qkv, query_begin and causality are as in
  // PagedAttention, which reads the same rows. REQUIRES: the runs of those sequences are RAW16.
  virtual void AttentionColumns(const float* qkv, const int32_t* query_begin, const ColumnJob* jobs,
                                int64_t num_jobs, int64_t heads, const KvLayerView& kv,
                                float* columns) = 0;
};

}  // namespace tessera
