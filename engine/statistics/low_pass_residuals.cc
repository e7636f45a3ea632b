#include "engine/statistics/low_pass_residuals.h"

#include "base/base.h"

namespace tessera {
namespace {

// Where the numbers of a prompt lie, in bytes, on the device as on the host: the sums, then these.
struct Places {
  int64_t residuals, ranks, end;

  Places(int64_t layers, int64_t tokens)
      : residuals(layers * 8 * static_cast<int64_t>(sizeof(double))),
        ranks(residuals + layers * tokens * 4 * static_cast<int64_t>(sizeof(float))),
        end(ranks + layers * tokens * static_cast<int64_t>(sizeof(int32_t))) {}
};

}  // namespace

bool KvResiduals::Begin(const uint8_t* arena, const KvGeometry& geometry,
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

  const Places places(prompt.layers, prompt.tokens);
  uint8_t* device = prompt.device.Reserve(*ops_, places.end);
  auto* residuals = reinterpret_cast<float*>(device + places.residuals);
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
                   reinterpret_cast<int32_t*>(device + places.ranks),
                   reinterpret_cast<double*>(device));
  prompt.fetched.Begin(*ops_, device, places.end);
  return true;
}

std::vector<LowPassStats> KvResiduals::Take() {
  std::vector<LowPassStats> all;
  for (size_t i = 0; i < begun_; ++i) {
    const Prompt& prompt = prompts_[i];
    const Places places(prompt.layers, prompt.tokens);
    const uint8_t* from = prompt.fetched.get();
    const auto rows = static_cast<size_t>(prompt.layers * prompt.tokens);
    all.push_back(
        {{reinterpret_cast<const float*>(from + places.residuals), rows * 4},
         {reinterpret_cast<const int32_t*>(from + places.ranks), rows},
         {reinterpret_cast<const double*>(from), static_cast<size_t>(prompt.layers) * 8}});
  }
  begun_ = 0;
  return all;
}

}  // namespace tessera
