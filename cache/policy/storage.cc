#include "cache/policy/storage.h"

namespace tessera {
namespace {

bool Same(const QuantRule& a, const QuantRule& b) {
  return a.clip_k == b.clip_k && a.clip_v == b.clip_v && a.integer_offset == b.integer_offset &&
         a.quantile == b.quantile;
}

}  // namespace

bool LayerStorage::Valid() const {
  if (window < 0 || !HoldsTokens(text) || !HoldsTokens(vision) || HasHeader(text)) return false;
  if (text == vision) return Same(text_rule, vision_rule) && vision_map.identity();
  if (FillsWholePages(text) || FillsWholePages(vision)) return false;
  return exits() ? !HasHeader(vision) && vision != Format::kRaw16 : window == 0;
}

std::vector<int32_t> SegmentsOf(absl::Span<const uint8_t> vision) {
  std::vector<int32_t> segments;
  int32_t segment = -1;
  uint8_t previous = 0;
  for (const uint8_t flag : vision) {
    if (flag != 0 && flag != previous) ++segment;
    segments.push_back(segment);
    previous = flag;
  }
  return segments;
}

MoveBatch& BatchFor(std::vector<MoveBatch>& batches, Format to, const QuantRule& rule) {
  for (MoveBatch& batch : batches) {
    if (batch.moves.empty()) {
      batch.to = to;
      batch.rule = rule;
    }
    if (batch.to == to && Same(batch.rule, rule)) return batch;
  }
  batches.push_back({to, rule, {}});
  return batches.back();
}

}  // namespace tessera
