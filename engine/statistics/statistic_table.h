// The table of statistics: one line for each, in a fixed order.
//
// Threads: constant.
#pragma once

#include <memory>

#include "absl/types/span.h"
#include "engine/statistics/statistic.h"

namespace tessera {

struct StatisticEntry {
  // Says whether a policy with these needs reads the statistic.
  bool (*needed)(const PolicyNeeds& needs);
  std::unique_ptr<SequenceStatistic> (*make_sequence)(const PolicyNeeds& needs,
                                                      const StatisticShape& shape, int tokens);
  // Null: the statistic is not measured inside the forward pass.
  std::unique_ptr<StepStatistic> (*make_step)(const StatisticShape& shape);
};

absl::Span<const StatisticEntry> StatisticTable();

}  // namespace tessera
