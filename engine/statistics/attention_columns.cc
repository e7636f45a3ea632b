#include "engine/statistics/attention_columns.h"

#include <algorithm>

#include "base/base.h"
#include "engine/statistics/prompt_statistics.h"
#include "engine/transfer/fetched.h"

namespace tessera {
namespace {

// The jobs of one step: the observed rows of each sequence.
class StepColumns final : public StepStatistic {
 public:
  explicit StepColumns(const StatisticShape& shape) : shape_(shape) {}

  void Clear() override {
    jobs_.clear();
    statistics_.clear();
    width_ = 0;
  }

  StatisticDue Add(const StatisticChunk& chunk) override {
    const PolicyNeeds& needs = *chunk.needs;
    if (needs.attention_rows == 0) return StatisticDue::kNever;
    if (chunk.committed) {
      if (!needs.attention_steps) return StatisticDue::kNever;
      chunk.statistics->Find<AttentionColumns>()->Grow(chunk.stored_tokens);
      AddJob(chunk, chunk.first_row, chunk.count, chunk.stored_tokens);
      return StatisticDue::kNextStep;
    }
    // The prompt's last `attention_rows` rows; a chunk may hold a part of them.
    const int end = std::min(chunk.first_token + chunk.count, chunk.prompt_tokens);
    const int first = std::max(chunk.first_token, chunk.prompt_tokens - needs.attention_rows);
    if (first >= end) return StatisticDue::kNever;
    AddJob(chunk, chunk.first_row + first - chunk.first_token, end - first, chunk.prompt_tokens);
    return StatisticDue::kNextStep;
  }
  bool empty() const override { return jobs_.empty(); }

  void Stage(Ops& ops, Staging& staging) override {
    std::vector<float> sums(shape_.layers * width_);
    for (size_t i = 0; i < jobs_.size(); ++i) {
      auto& from = *statistics_[i]->Find<AttentionColumns>();
      for (int layer = 0; layer < shape_.layers; ++layer) {
        const absl::Span<const float> so_far = from.sums(layer);
        std::copy(so_far.begin(), so_far.end(), &sums[layer * width_ + jobs_[i].columns]);
      }
    }
    staged_jobs_ = staging.Add(jobs_);
    device_sums_ = staging.Add(sums);
  }
  void OnAttention(Ops& ops, int layer, const float* qkv, const int32_t* query_begin,
                   const KvLayerView& kv) override {
    ops.AttentionColumns(qkv, query_begin, staged_jobs_, std::ssize(jobs_), shape_.heads, kv,
                         device_sums_ + layer * width_);
  }
  void BeginFetch(Ops& ops) override { sums_.Begin(ops, device_sums_, shape_.layers * width_); }

  void Collect(absl::FunctionRef<PromptStatistics*(int)> find) override {
    for (const ColumnJob& job : jobs_) {
      PromptStatistics* statistics = find(job.sequence);
      auto* to = statistics == nullptr ? nullptr : statistics->Find<AttentionColumns>();
      if (to == nullptr) continue;
      for (int layer = 0; layer < shape_.layers; ++layer) {
        const absl::Span<float> sums = to->sums(layer);
        std::copy_n(sums_.get() + layer * width_ + job.columns, sums.size(), sums.begin());
      }
    }
  }

 private:
  void AddJob(const StatisticChunk& chunk, int first_row, int rows, int tokens) {
    jobs_.push_back({chunk.sequence, first_row, rows, width_});
    statistics_.push_back(chunk.statistics);
    width_ += tokens;
  }

  StatisticShape shape_;
  std::vector<ColumnJob> jobs_;
  std::vector<PromptStatistics*> statistics_;  // [jobs], until Stage
  int64_t width_ = 0;                          // tokens of all jobs together
  const ColumnJob* staged_jobs_ = nullptr;
  float* device_sums_ = nullptr;  // [layers, width]
  Fetched<float> sums_;
};

}  // namespace

AttentionColumns::AttentionColumns(const PolicyNeeds& needs, const StatisticShape& shape,
                                   int tokens)
    : outlives_commit_(needs.attention_steps), sums_(shape.layers, std::vector<float>(tokens)) {}

void AttentionColumns::Keep(int layer, absl::Span<const int32_t> kept) {
  std::vector<float>& sums = sums_[layer];
  for (size_t i = 0; i < kept.size(); ++i) sums[i] = sums[kept[i]];
  sums.resize(kept.size());
}

void AttentionColumns::Grow(int tokens) {
  for (std::vector<float>& sums : sums_) {
    TESSERA_CHECK(std::ssize(sums) <= tokens);
    sums.resize(tokens);
  }
}

const StatisticEntry kAttentionColumns = {
    [](const PolicyNeeds& needs) { return needs.attention_rows > 0; },
    [](const PolicyNeeds& needs, const StatisticShape& shape,
       int tokens) -> std::unique_ptr<SequenceStatistic> {
      return std::make_unique<AttentionColumns>(needs, shape, tokens);
    },
    [](const StatisticShape& shape) -> std::unique_ptr<StepStatistic> {
      return std::make_unique<StepColumns>(shape);
    }};

}  // namespace tessera
