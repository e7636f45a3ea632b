#include "engine/statistics/statistic_table.h"

#include "engine/statistics/attention_columns.h"
#include "engine/statistics/low_pass_residuals.h"
#include "engine/statistics/residual_peaks.h"

namespace tessera {

absl::Span<const StatisticEntry> StatisticTable() {
  static const StatisticEntry kTable[] = {kLowPassResiduals, kAttentionColumns, kResidualPeaks};
  return kTable;
}

}  // namespace tessera
