#include "engine/kv_residuals.h"

#include <algorithm>

#include "kernels/base.h"

namespace tessera {

bool KvResiduals::Begin(const uint8_t* arena, const KvGeometry& geometry,
                        const std::vector<PageId>& pages,
                        const std::vector<LowPassSegment>& segments) {
  TESSERA_CHECK(!segments.empty());
  if (begun_ == prompts_.size()) return false;
  Prompt& prompt = prompts_[begun_++];
  prompt.layers = geometry.layers;
  prompt.segments = segments;
  const int64_t row = prompt.layers * 4;
  const int64_t floats = row * (segments.back().first + segments.back().tokens);
  const PageId* list = staging_->Add(pages);
  staging_->Upload();
  float* device = prompt.device.Reserve(*ops_, floats);
  int64_t next = 0;
  for (const LowPassSegment& segment : segments) {
    TESSERA_CHECK(segment.first == next);
    next += segment.tokens;
    ops_->LowPassResiduals(arena, geometry, list,
                           static_cast<int64_t>(pages.size()) / prompt.layers, segment.first,
                           segment.tokens, segment.kept, device + row * segment.first);
  }
  prompt.fetched.Begin(*ops_, device, floats);
  return true;
}

std::vector<absl::Span<const float>> KvResiduals::Take() {
  std::vector<absl::Span<const float>> all;
  for (size_t i = 0; i < begun_; ++i) all.push_back(ByLayer(prompts_[i]));
  begun_ = 0;
  return all;
}

absl::Span<const float> KvResiduals::ByLayer(Prompt& prompt) {
  const int64_t tokens = prompt.segments.back().first + prompt.segments.back().tokens;
  const int64_t floats = prompt.layers * tokens * 4;
  const float* from = prompt.fetched.get();
  if (prompt.segments.size() == 1) return absl::MakeConstSpan(from, floats);
  prompt.by_layer.resize(floats);
  for (const LowPassSegment& segment : prompt.segments) {
    for (int64_t layer = 0; layer < prompt.layers; ++layer) {
      std::copy_n(from, segment.tokens * 4, &prompt.by_layer[(layer * tokens + segment.first) * 4]);
      from += segment.tokens * 4;
    }
  }
  return prompt.by_layer;
}

}  // namespace tessera
