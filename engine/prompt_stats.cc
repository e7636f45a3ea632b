#include "engine/prompt_stats.h"

#include <algorithm>

#include "kernels/base.h"

namespace tessera {

void PromptStats::Begin(const PolicyNeeds& needs, int layers, int tokens, int width) {
  if (tokens_ > 0 || !needs.any()) return;
  layers_ = layers;
  tokens_ = tokens;
  peaks_per_token_ = std::min(needs.residual_peaks, width);
  const int64_t rows = int64_t{layers} * tokens;
  peaks_.resize(rows * peaks_per_token_);
  if (needs.residual_medians) medians_.resize(rows);
  if (needs.low_pass) low_pass_.resize(rows * 4);
}

void PromptStats::Clear() { *this = PromptStats(); }

void PromptStats::SetPeaks(int layer, int token, const float* peaks, const float* median) {
  TESSERA_CHECK(token < tokens_);
  const int64_t row = int64_t{layer} * tokens_ + token;
  std::copy_n(peaks, peaks_per_token_, &peaks_[row * peaks_per_token_]);
  if (!medians_.empty()) medians_[row] = *median;
}

void PromptStats::SetLowPass(const LowPassSegment& segment, const float* residuals) {
  TESSERA_CHECK(segment.first + segment.tokens <= tokens_);
  const int64_t n = int64_t{segment.tokens} * 4;
  for (int64_t layer = 0; layer < layers_; ++layer) {
    std::copy_n(residuals + layer * n, n, &low_pass_[(layer * tokens_ + segment.first) * 4]);
  }
}

std::vector<LayerStats> PromptStats::Layers() const {
  std::vector<LayerStats> layers(layers_);
  const auto part = [&](const std::vector<float>& all, int layer) {
    const size_t n = all.size() / layers_;
    return absl::MakeConstSpan(all).subspan(layer * n, n);
  };
  for (int layer = 0; layer < layers_; ++layer) {
    layers[layer] = {peaks_per_token_, part(peaks_, layer), part(medians_, layer),
                     part(low_pass_, layer)};
  }
  return layers;
}

int64_t PromptStats::bytes() const {
  return static_cast<int64_t>(peaks_.size() + medians_.size() + low_pass_.size()) * 4;
}

TokenScores PromptStats::Scores() const {
  TokenScores scores;
  if (low_pass_.empty() && peaks_.empty()) return scores;
  scores.name = low_pass_.empty() ? "largest |h|" : "deviation from the low-pass base";
  scores.layers.assign(layers_, std::vector<float>(tokens_));
  for (int64_t layer = 0; layer < layers_; ++layer) {
    for (int64_t token = 0; token < tokens_; ++token) {
      const int64_t at = layer * tokens_ + token;
      scores.layers[layer][token] = low_pass_.empty() ? peaks_[at * peaks_per_token_]
                                                      : low_pass_[4 * at] + low_pass_[4 * at + 1];
    }
  }
  return scores;
}

}  // namespace tessera
