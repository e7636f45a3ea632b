#include "engine/statistics/prompt_statistics.h"

#include <algorithm>

#include "base/base.h"

namespace tessera {

void PromptStats::Begin(const PolicyNeeds& needs, int layers, int tokens, int width) {
  if (tokens_ > 0 || !needs.any()) return;
  layers_ = layers;
  tokens_ = tokens;
  peaks_per_token_ = std::min(needs.residual_peaks, width);
  const int64_t rows = int64_t{layers} * tokens;
  peaks_.resize(rows * peaks_per_token_);
  if (needs.residual_medians) medians_.resize(rows);
  columns_.assign(layers, std::vector<float>(needs.attention_rows > 0 ? tokens : 0));
}

void PromptStats::Clear() { *this = PromptStats(); }

void PromptStats::SetPeaks(int layer, int token, const float* peaks, const float* median) {
  TESSERA_CHECK(token < tokens_);
  const int64_t row = int64_t{layer} * tokens_ + token;
  std::copy_n(peaks, peaks_per_token_, &peaks_[row * peaks_per_token_]);
  if (!medians_.empty()) medians_[row] = *median;
}

void PromptStats::SetLowPass(const LowPassStats& low_pass) {
  TESSERA_CHECK(std::ssize(low_pass.ranks) == int64_t{layers_} * tokens_);
  low_pass_ = low_pass;
}

void PromptStats::GrowColumns(int tokens) {
  for (std::vector<float>& sums : columns_) {
    TESSERA_CHECK(sums.size() <= static_cast<size_t>(tokens));
    sums.resize(tokens);
  }
}

void PromptStats::KeepColumns(int layer, absl::Span<const int32_t> kept) {
  std::vector<float>& sums = columns_[layer];
  for (size_t i = 0; i < kept.size(); ++i) sums[i] = sums[kept[i]];
  sums.resize(kept.size());
}

std::vector<LayerStats> PromptStats::Layers() const {
  std::vector<LayerStats> layers(layers_);
  const auto part = [&]<class T>(const T& all, int layer) {
    const size_t n = all.size() / layers_;
    return absl::MakeConstSpan(all).subspan(layer * n, n);
  };
  for (int layer = 0; layer < layers_; ++layer) {
    const LowPassStats low_pass = {part(low_pass_.residuals, layer), part(low_pass_.ranks, layer),
                                   part(low_pass_.sums, layer)};
    layers[layer] = {peaks_per_token_, part(peaks_, layer), part(medians_, layer), low_pass,
                     columns_[layer]};
  }
  return layers;
}

TokenScores PromptStats::Scores() const {
  TokenScores scores;
  const auto fill = [&](const char* name, const auto& score_at) {
    scores.name = name;
    scores.layers.assign(layers_, std::vector<float>(tokens_));
    for (int64_t at = 0; at < int64_t{layers_} * tokens_; ++at) {
      scores.layers[at / tokens_][at % tokens_] = score_at(at);
    }
  };
  if (const absl::Span<const float> residuals = low_pass_.residuals; !residuals.empty()) {
    fill("deviation from the low-pass base",
         [&](int64_t at) { return residuals[4 * at] + residuals[4 * at + 1]; });
  } else if (!columns_.empty() && !columns_[0].empty()) {
    fill("attention received", [&](int64_t at) { return columns_[at / tokens_][at % tokens_]; });
  } else if (!peaks_.empty()) {
    fill("largest |h|", [&](int64_t at) { return peaks_[at * peaks_per_token_]; });
  }
  return scores;
}

}  // namespace tessera
