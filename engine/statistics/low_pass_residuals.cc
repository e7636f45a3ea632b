#include "engine/statistics/low_pass_residuals.h"

#include <memory>

#include "base/base.h"

namespace tessera {
namespace {

// The offsets of a prompt's numbers in bytes, on the device and on the host: the sums come first.
struct Offsets {
  int64_t residuals, ranks, end;

  Offsets(int64_t layers, int64_t tokens)
      : residuals(layers * 8 * static_cast<int64_t>(sizeof(double))),
        ranks(residuals + layers * tokens * 4 * static_cast<int64_t>(sizeof(float))),
        end(ranks + layers * tokens * static_cast<int64_t>(sizeof(int32_t))) {}
};

}  // namespace

void LowPassResiduals::Set(const LowPassStats& values) {
  TESSERA_CHECK(std::ssize(values.ranks) == int64_t{layers_} * tokens_);
  values_ = values;
}

void LowPassResiduals::Describe(int layer, LayerStats* out) const {
  const auto of_layer = [&]<class T>(absl::Span<const T> all) {
    const size_t n = all.size() / layers_;
    return all.subspan(layer * n, n);
  };
  out->low_pass = {of_layer(values_.residuals), of_layer(values_.ranks), of_layer(values_.sums)};
}

TokenScores LowPassResiduals::Scores() const {
  if (values_.residuals.empty()) return {};
  TokenScores scores{"deviation from the low-pass base", {}};
  for (int64_t layer = 0; layer < layers_; ++layer) {
    std::vector<float>& of_layer = scores.layers.emplace_back();
    for (int64_t token = 0; token < tokens_; ++token) {
      const float* residuals = &values_.residuals[4 * (layer * tokens_ + token)];
      of_layer.push_back(residuals[0] + residuals[1]);
    }
  }
  return scores;
}

const StatisticEntry kLowPassResiduals = {[](const PolicyNeeds& needs) { return needs.low_pass; },
                                          [](const PolicyNeeds&, const StatisticShape& shape,
                                             int tokens) -> std::unique_ptr<SequenceStatistic> {
                                            return std::make_unique<LowPassResiduals>(shape,
                                                                                      tokens);
                                          },
                                          nullptr};

bool LowPassMeasurement::Begin(const uint8_t* arena, const KvGeometry& geometry,
                               const std::vector<PageId>& pages, const PromptView& view,
                               const std::vector<LowPassSegment>& segments) {
  if (begun_ == prompts_.size()) return false;
  Prompt& prompt = prompts_[begun_++];
  prompt.layers = geometry.layers;
  prompt.tokens = view.tokens();
  const PageId* list = staging_->Add(pages);
  const uint8_t* vision =
      staging_->Add(std::vector<uint8_t>(view.vision.begin(), view.vision.end()));
  staging_->Upload();

  const Offsets offsets(prompt.layers, prompt.tokens);
  uint8_t* device = prompt.device.Reserve(*ops_, offsets.end);
  auto* residuals = reinterpret_cast<float*>(device + offsets.residuals);
  int64_t next = 0;
  for (const LowPassSegment& segment : segments) {
    TESSERA_CHECK(segment.first == next);
    next += segment.tokens;
    ops_->LowPassResiduals(arena, geometry, list,
                           static_cast<int64_t>(pages.size()) / prompt.layers, segment,
                           prompt.tokens, residuals);
  }
  TESSERA_CHECK(next == prompt.tokens);
  ops_->RankTokens(residuals, vision, prompt.layers, prompt.tokens,
                   reinterpret_cast<int32_t*>(device + offsets.ranks),
                   reinterpret_cast<double*>(device));
  prompt.fetched.Begin(*ops_, device, offsets.end);
  return true;
}

std::vector<LowPassStats> LowPassMeasurement::Take() {
  std::vector<LowPassStats> all;
  for (size_t i = 0; i < begun_; ++i) {
    const Prompt& prompt = prompts_[i];
    const Offsets offsets(prompt.layers, prompt.tokens);
    const uint8_t* from = prompt.fetched.get();
    const auto rows = static_cast<size_t>(prompt.layers * prompt.tokens);
    all.push_back(
        {{reinterpret_cast<const float*>(from + offsets.residuals), rows * 4},
         {reinterpret_cast<const int32_t*>(from + offsets.ranks), rows},
         {reinterpret_cast<const double*>(from), static_cast<size_t>(prompt.layers) * 8}});
  }
  begun_ = 0;
  return all;
}

}  // namespace tessera
