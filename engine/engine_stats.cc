// Engine::Loop's part that collects what policies need of the forward pass (cache/policy_stats.h).
#include <algorithm>

#include "engine/engine_loop.h"

namespace tessera {

void Engine::Loop::CollectPeaks(const StepPlan& plan, const Batch& batch) {
  if (batch.peak_rows.empty()) return;
  const LlavaModel::Peaks& peaks = model_->peaks();
  const auto rows = static_cast<int64_t>(batch.peak_rows.size());
  const int layers = arena_.geometry().layers;
  int64_t row = 0;  // of peak_rows, which MakeBatch lists in this order
  for (const StepPlan::Item& item : plan.items) {
    Sequence& s = *item.sequence;
    if (s.committed || s.needs.residual_peaks == 0) continue;
    s.stats.Begin(s.needs, layers, s.view().tokens(), model_->config().text.hidden);
    const int end = std::min(item.first + item.count, s.stats.tokens());
    for (int token = item.first; token < end; ++token, ++row) {
      for (int layer = 0; layer < layers; ++layer) {
        const int64_t at = layer * rows + row;
        s.stats.SetPeaks(layer, token, &peaks.peaks[at * batch.peaks],
                         batch.medians ? &peaks.medians[at] : nullptr);
      }
    }
  }
  TESSERA_CHECK(row == rows);
}

void Engine::Loop::MeasureLowPass(Sequence& s) {
  const int layers = arena_.geometry().layers;
  s.stats.Begin(s.needs, layers, s.view().tokens(), model_->config().text.hidden);
  std::vector<PageId> pages;
  for (int layer = 0; layer < layers; ++layer) {
    const std::vector<PageId>& own = s.cache.runs(layer).back().pages;  // the only run until now
    pages.insert(pages.end(), own.begin(), own.end());
  }
  std::vector<float> residuals;
  for (const LowPassSegment& segment : s.needs.Segments(s.view())) {
    residuals.resize(int64_t{layers} * segment.tokens * 4);
    model_->LowPassResiduals(arena_memory_.get(), pages, segment, residuals.data());
    s.stats.SetLowPass(segment, residuals.data());
  }
}

}  // namespace tessera
