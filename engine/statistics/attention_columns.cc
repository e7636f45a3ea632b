// Engine::Loop's part that collects what policies need of the forward pass
// (cache/policy/policy_stats.h).
#include <algorithm>
#include <cstddef>

#include "engine/runtime/engine_core.h"

namespace tessera {

void Engine::Loop::AskForStatistics(const StepPlan::Item& item, Batch* batch) {
  Sequence& s = *item.sequence;
  if (!s.needs.any()) return;
  if (s.committed) {
    if (!s.needs.attention_steps) return;
    const int stored = s.cache.stored(0);  // as in every layer
    s.stats.GrowColumns(stored);
    batch->column_jobs.push_back(
        {batch->sequences() - 1, batch->rows() - item.count, item.count, batch->column_tokens});
    batch->column_tokens += stored;
    return;
  }
  const int hidden = model_->config().text.hidden, tokens = s.view().tokens();
  s.stats.Begin(s.needs, arena_.geometry().layers, tokens, hidden);
  const int first_row = batch->rows() - item.count, end = std::min(item.first + item.count, tokens);
  if (s.needs.residual_peaks > 0) {
    for (int i = item.first; i < end; ++i) batch->peak_rows.push_back(first_row + i - item.first);
    batch->peaks = std::max(batch->peaks, s.stats.peaks_per_token());
    batch->medians |= s.needs.residual_medians;
  }
  const int voter = std::max(item.first, tokens - s.needs.attention_rows);
  if (s.needs.attention_rows > 0 && voter < end) {
    batch->column_jobs.push_back({batch->sequences() - 1, first_row + voter - item.first,
                                  end - voter, batch->column_tokens});
    batch->column_tokens += tokens;
  }
}

// Sums go to the device as they are and come back with the step's rows added: so their bits do not
// depend on how the prompt is cut.
void Engine::Loop::FillColumns(const StepPlan& plan, Batch* batch) {
  const int64_t width = batch->column_tokens;
  batch->columns.resize(arena_.geometry().layers * width);
  for (const ColumnJob& job : batch->column_jobs) {
    PromptStats& stats = plan.items[job.sequence].sequence->stats;
    for (int layer = 0; layer < arena_.geometry().layers; ++layer) {
      const absl::Span<const float> sums = stats.Columns(layer);
      std::copy(sums.begin(), sums.end(), batch->columns.begin() + layer * width + job.columns);
    }
  }
}

// A sequence that was preempted meanwhile is measured again when it runs again.
void Engine::Loop::CollectStatistics(const Flight& flight, const LlavaModel::Answers& answers) {
  const Batch& batch = flight.batch;
  const int layers = arena_.geometry().layers;
  for (const ColumnJob& job : batch.column_jobs) {
    Sequence& s = *flight.plan.items[job.sequence].sequence;
    if (!s.running) continue;
    for (int layer = 0; layer < layers; ++layer) {
      const absl::Span<float> to = s.stats.Columns(layer);
      std::copy_n(answers.columns + layer * batch.column_tokens + job.columns, to.size(),
                  to.begin());
    }
  }
  const auto rows = std::ssize(batch.peak_rows);
  size_t at = 0;  // of the plan's items, as rows ascend
  for (int64_t i = 0; i < rows; ++i) {
    while (batch.query_begin[at + 1] <= batch.peak_rows[i]) ++at;
    const StepPlan::Item& item = flight.plan.items[at];
    if (!item.sequence->running) continue;
    const int token = item.first + batch.peak_rows[i] - batch.query_begin[at];
    for (int layer = 0; layer < layers; ++layer) {
      const int64_t row = layer * rows + i;
      item.sequence->stats.SetPeaks(layer, token, answers.peaks + row * batch.peaks,
                                    batch.medians ? answers.medians + row : nullptr);
    }
  }
}

// As many as the model takes at a time; SettleLowPass goes on with the others.
void Engine::Loop::BeginLowPass(Flight* flight, StepReport* report) {
  const absl::Time start = SteadyNow();
  const int layers = arena_.geometry().layers;
  std::erase_if(flight->low_pass, [this](Sequence* s) {
    const bool gone = !Live(s) || !s->running;  // ended, or preempted and to be measured again
    if (gone) s->held = false;
    return gone;
  });
  for (flight->begun = 0; flight->begun < flight->low_pass.size(); ++flight->begun) {
    Sequence& s = *flight->low_pass[flight->begun];
    std::vector<PageId> pages;
    for (int layer = 0; layer < layers; ++layer) {
      const std::vector<PageId>& own = s.cache.runs(layer).back().pages;  // the only run until now
      pages.insert(pages.end(), own.begin(), own.end());
    }
    const PromptView prompt = s.view();
    if (!model_->BeginLowPass(arena_memory_.get(), pages, prompt, s.needs.Segments(prompt))) break;
    // Nothing was asked of the steps when all of it was found in the prefix index.
    s.stats.Begin(s.needs, layers, s.view().tokens(), model_->config().text.hidden);
  }
  report->compress_seconds += absl::ToDoubleSeconds(SteadyNow() - start);
}

void Engine::Loop::SettleLowPass(Flight* flight, StepReport* report) {
  while (!flight->low_pass.empty()) {
    const absl::Time start = SteadyNow();
    const std::vector<LowPassStats> low_pass = model_->FinishLowPass();
    report->forward_seconds += absl::ToDoubleSeconds(SteadyNow() - start);
    const auto begun = flight->low_pass.begin() + static_cast<std::ptrdiff_t>(flight->begun);
    const std::vector<Sequence*> measured(flight->low_pass.begin(), begun);
    TESSERA_CHECK(low_pass.size() == measured.size());
    for (size_t i = 0; i < measured.size(); ++i) {
      if (Live(measured[i]) && measured[i]->running) measured[i]->stats.SetLowPass(low_pass[i]);
    }
    flight->low_pass.erase(flight->low_pass.begin(), begun);
    Release(measured, report);
    BeginLowPass(flight, report);
  }
}

}  // namespace tessera
