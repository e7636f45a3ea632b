#include "cache/policy/pivots.h"

#include <algorithm>
#include <utility>

#include "base/base.h"

namespace tessera {

PolicyNeeds PivotNeeds(PivotRule rule, int count) {
  PolicyNeeds needs;
  if (count == 0) return needs;
  needs.residual_peaks = rule == PivotRule::kTopKEntries ? count : 1;
  needs.residual_medians = rule == PivotRule::kThreshold;
  return needs;
}

std::vector<int32_t> FindPivots(PivotRule rule, int count, absl::Span<const int32_t> kept,
                                const LayerStats& stats) {
  const int64_t width = stats.peaks_per_token;
  TESSERA_CHECK(count == 0 || kept.empty() || width > 0);
  std::vector<std::pair<float, int32_t>> entries;  // (-|h|, token): ascending order ranks both
  for (const int32_t token : kept) {
    const float* peaks = &stats.peaks[token * width];
    if (rule == PivotRule::kThreshold &&
        !(peaks[0] > 100 && peaks[0] > 1000 * stats.medians[token])) {
      continue;
    }
    const int64_t used = rule == PivotRule::kTopKEntries ? std::min<int64_t>(width, count) : 1;
    for (int64_t i = 0; i < used; ++i) entries.emplace_back(-peaks[i], token);
  }
  const size_t taken = std::min(entries.size(), static_cast<size_t>(count));
  std::partial_sort(entries.begin(), entries.begin() + static_cast<int64_t>(taken), entries.end());
  std::vector<int32_t> pivots;
  for (size_t i = 0; i < taken; ++i) pivots.push_back(entries[i].second);
  std::sort(pivots.begin(), pivots.end());
  pivots.erase(std::unique(pivots.begin(), pivots.end()), pivots.end());
  return pivots;
}

}  // namespace tessera
