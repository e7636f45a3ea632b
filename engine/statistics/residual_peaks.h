// The largest |h| of each token at each layer's input, and their median: massive activations.
//
// Read by policies with PolicyNeeds::residual_peaks (AKVQ-VL's pivots). Host memory:
// layers * tokens * (peaks + 1) floats a sequence. Source: cache/policy/pivots.h.
// Threads: the engine's thread.
#pragma once

#include <vector>

#include "engine/statistics/statistic.h"
#include "engine/statistics/statistic_table.h"

namespace tessera {

class ResidualPeaks final : public SequenceStatistic {
 public:
  ResidualPeaks(const PolicyNeeds& needs, const StatisticShape& shape, int tokens);
  void Describe(int layer, LayerStats* out) const override;
  TokenScores Scores() const override;

  int peaks_per_token() const { return peaks_per_token_; }  // residual_peaks or the hidden size
  // peaks [peaks_per_token()], descending; `median` may be null if medians are not needed.
  void Set(int layer, int token, const float* peaks, const float* median);

 private:
  int layers_, tokens_, peaks_per_token_;
  std::vector<float> peaks_;    // [layers, tokens, peaks_per_token]
  std::vector<float> medians_;  // [layers, tokens], or empty
};

extern const StatisticEntry kResidualPeaks;

}  // namespace tessera
