#include "engine/kv_residuals.h"

#include <algorithm>
#include <bit>

#include "kernels/base.h"

namespace tessera {

absl::Span<const float> KvResiduals::Measure(const uint8_t* arena, const KvGeometry& geometry,
                                             const std::vector<PageId>& pages,
                                             const std::vector<LowPassSegment>& segments) {
  TESSERA_CHECK(!segments.empty());
  const int64_t layers = geometry.layers, row = layers * 4;
  const int64_t tokens = segments.back().first + segments.back().tokens, floats = row * tokens;
  if (floats > capacity_) {
    capacity_ = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(floats)));
    device_ = ops_->Allocate(capacity_ * 4);
    fetched_ = ops_->AllocateStaging(capacity_ * 4);
  }
  const PageId* list = staging_->Add(pages);
  staging_->Upload();
  auto* device = reinterpret_cast<float*>(device_.get());
  int64_t next = 0;
  for (const LowPassSegment& segment : segments) {
    TESSERA_CHECK(segment.first == next);
    next += segment.tokens;
    ops_->LowPassResiduals(arena, geometry, list, static_cast<int64_t>(pages.size()) / layers,
                           segment.first, segment.tokens, segment.kept,
                           device + row * segment.first);
  }
  ops_->CopyToHost(fetched_.get(), device, floats * 4);
  const auto* from = reinterpret_cast<const float*>(fetched_.get());
  if (segments.size() == 1) return absl::MakeConstSpan(from, floats);
  by_layer_.resize(floats);
  for (const LowPassSegment& segment : segments) {
    for (int64_t layer = 0; layer < layers; ++layer) {
      std::copy_n(from, segment.tokens * 4, &by_layer_[(layer * tokens + segment.first) * 4]);
      from += segment.tokens * 4;
    }
  }
  return by_layer_;
}

}  // namespace tessera
