#include "engine/statistics/residual_peaks.h"

#include <algorithm>

#include "base/base.h"
#include "engine/statistics/prompt_statistics.h"
#include "engine/transfer/fetched.h"

namespace tessera {
namespace {

// The rows of one step: every token of the prompts in it whose policies ask.
class StepPeaks final : public StepStatistic {
 public:
  explicit StepPeaks(const StatisticShape& shape) : shape_(shape) {}

  void Clear() override {
    rows_.clear();
    tokens_.clear();
    top_ = 0;
    with_medians_ = false;
  }

  StatisticDue Add(const StatisticChunk& chunk) override {
    if (chunk.committed || chunk.needs->residual_peaks == 0) return StatisticDue::kNever;
    const int end = std::min(chunk.first_token + chunk.count, chunk.prompt_tokens);
    for (int token = chunk.first_token; token < end; ++token) {
      rows_.push_back(chunk.first_row + token - chunk.first_token);
      tokens_.push_back({chunk.sequence, token});
    }
    const int64_t peaks = chunk.statistics->Find<ResidualPeaks>()->peaks_per_token();
    top_ = std::max(top_, peaks);
    with_medians_ |= chunk.needs->residual_medians;
    return StatisticDue::kCommit;
  }
  bool empty() const override { return rows_.empty(); }

  void Stage(Ops& ops, Staging& staging) override {
    staged_rows_ = staging.Add(rows_);
    device_peaks_.Reserve(ops, shape_.layers * num_rows() * top_);
    if (with_medians_) device_medians_.Reserve(ops, shape_.layers * num_rows());
  }
  void OnLayerInput(Ops& ops, int layer, const float* hidden) override {
    const int64_t row = layer * num_rows();
    ops.RowPeaks(hidden, staged_rows_, num_rows(), shape_.hidden, top_,
                 device_peaks_.get() + row * top_,
                 with_medians_ ? device_medians_.get() + row : nullptr);
  }
  void BeginFetch(Ops& ops) override {
    const int64_t rows = shape_.layers * num_rows();
    peaks_.Begin(ops, device_peaks_.get(), rows * top_);
    medians_.Begin(ops, device_medians_.get(), with_medians_ ? rows : 0);
  }

  void Collect(absl::FunctionRef<PromptStatistics*(int)> find) override {
    for (int64_t i = 0; i < num_rows(); ++i) {
      PromptStatistics* statistics = find(tokens_[i].sequence);
      auto* to = statistics == nullptr ? nullptr : statistics->Find<ResidualPeaks>();
      if (to == nullptr) continue;
      for (int layer = 0; layer < shape_.layers; ++layer) {
        const int64_t row = layer * num_rows() + i;
        to->Set(layer, tokens_[i].token, peaks_.get() + row * top_,
                with_medians_ ? medians_.get() + row : nullptr);
      }
    }
  }

 private:
  struct Token {
    int sequence, token;
  };
  int64_t num_rows() const { return std::ssize(rows_); }

  StatisticShape shape_;
  std::vector<int32_t> rows_;  // in the batch
  std::vector<Token> tokens_;  // [rows]
  int64_t top_ = 0;            // peaks a row: the most that any sequence asks for
  bool with_medians_ = false;
  const int32_t* staged_rows_ = nullptr;
  Grown<float> device_peaks_, device_medians_;  // [layers, rows, top], [layers, rows]
  Fetched<float> peaks_, medians_;
};

}  // namespace

ResidualPeaks::ResidualPeaks(const PolicyNeeds& needs, const StatisticShape& shape, int tokens)
    : layers_(shape.layers),
      tokens_(tokens),
      peaks_per_token_(std::min(needs.residual_peaks, shape.hidden)) {
  const int64_t rows = int64_t{layers_} * tokens_;
  peaks_.resize(rows * peaks_per_token_);
  if (needs.residual_medians) medians_.resize(rows);
}

void ResidualPeaks::Set(int layer, int token, const float* peaks, const float* median) {
  TESSERA_CHECK(token < tokens_);
  const int64_t row = int64_t{layer} * tokens_ + token;
  std::copy_n(peaks, peaks_per_token_, &peaks_[row * peaks_per_token_]);
  if (!medians_.empty()) medians_[row] = *median;
}

void ResidualPeaks::Describe(int layer, LayerStats* out) const {
  const auto rows = static_cast<size_t>(tokens_);
  out->peaks_per_token = peaks_per_token_;
  out->peaks =
      absl::MakeConstSpan(peaks_).subspan(layer * rows * peaks_per_token_, rows * peaks_per_token_);
  if (!medians_.empty()) out->medians = absl::MakeConstSpan(medians_).subspan(layer * rows, rows);
}

TokenScores ResidualPeaks::Scores() const {
  TokenScores scores{"largest |h|", {}};
  for (int layer = 0; layer < layers_; ++layer) {
    std::vector<float>& of_layer = scores.layers.emplace_back();
    for (int64_t token = 0; token < tokens_; ++token) {
      of_layer.push_back(peaks_[(int64_t{layer} * tokens_ + token) * peaks_per_token_]);
    }
  }
  return scores;
}

const StatisticEntry kResidualPeaks = {
    [](const PolicyNeeds& needs) { return needs.residual_peaks > 0; },
    [](const PolicyNeeds& needs, const StatisticShape& shape,
       int tokens) -> std::unique_ptr<SequenceStatistic> {
      return std::make_unique<ResidualPeaks>(needs, shape, tokens);
    },
    [](const StatisticShape& shape) -> std::unique_ptr<StepStatistic> {
      return std::make_unique<StepPeaks>(shape);
    }};

}  // namespace tessera
