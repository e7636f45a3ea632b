#include "engine/statistics/prompt_statistics.h"

#include "engine/statistics/statistic_table.h"

namespace tessera {

void PromptStatistics::Begin(const PolicyNeeds& needs, const StatisticShape& shape, int tokens) {
  if (!parts_.empty() || !needs.any()) return;
  layers_ = shape.layers;
  for (const StatisticEntry& entry : StatisticTable()) {
    if (entry.needed(needs)) parts_.push_back(entry.make_sequence(needs, shape, tokens));
  }
}

void PromptStatistics::Clear() { *this = PromptStatistics(); }

void PromptStatistics::OnCommit() {
  std::erase_if(parts_, [](const auto& part) { return !part->outlives_commit(); });
}

std::vector<LayerStats> PromptStatistics::Layers() const {
  std::vector<LayerStats> layers(layers_);
  for (const std::unique_ptr<SequenceStatistic>& part : parts_) {
    for (int layer = 0; layer < layers_; ++layer) part->Describe(layer, &layers[layer]);
  }
  return layers;
}

TokenScores PromptStatistics::Scores() const {
  for (const std::unique_ptr<SequenceStatistic>& part : parts_) {
    if (TokenScores scores = part->Scores(); !scores.layers.empty()) return scores;
  }
  return {};
}

void PromptStatistics::Keep(int layer, absl::Span<const int32_t> kept) {
  for (const std::unique_ptr<SequenceStatistic>& part : parts_) {
    part->Keep(layer, kept);
  }
}

}  // namespace tessera
