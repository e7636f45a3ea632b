// The attention that each token receives from chosen query rows, summed over rows and heads:
// accumulated attention scores.
//
// Read by policies with PolicyNeeds::attention_rows (SnapKV's observation window) and
// attention_steps (H2O: every later row as well). Host memory: layers * tokens floats a sequence.
// The sums so far travel to the device and come back with the step's rows added, so their bits do
// not depend on how a prompt is cut into chunks. Threads: the engine's thread.
#pragma once

#include <vector>

#include "engine/statistics/statistic.h"
#include "engine/statistics/statistic_table.h"

namespace tessera {

class AttentionColumns final : public SequenceStatistic {
 public:
  AttentionColumns(const PolicyNeeds& needs, const StatisticShape& shape, int tokens);
  void Describe(int layer, LayerStats* out) const override { out->columns = sums_[layer]; }
  TokenScores Scores() const override { return {"attention received", sums_}; }
  bool outlives_commit() const override { return outlives_commit_; }
  void Keep(int layer, absl::Span<const int32_t> kept) override;

  // Makes room for the sums of `tokens` stored tokens; new ones start at zero.
  void Grow(int tokens);
  absl::Span<float> sums(int layer) { return absl::MakeSpan(sums_[layer]); }

 private:
  bool outlives_commit_;
  std::vector<std::vector<float>> sums_;  // [layers][tokens]
};

extern const StatisticEntry kAttentionColumns;

}  // namespace tessera
