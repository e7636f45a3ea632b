#include "cache/storage.h"

namespace tessera {
namespace {

bool Same(const QuantRule& a, const QuantRule& b) {
  return a.clip_k == b.clip_k && a.clip_v == b.clip_v && a.integer_offset == b.integer_offset;
}

}  // namespace

bool LayerStorage::Valid() const {
  if (window < 0) return false;
  if (text == vision) return Same(text_rule, vision_rule);
  return !FillsWholePages(text) && !FillsWholePages(vision);
}

MoveBatch& BatchFor(std::vector<MoveBatch>& batches, Format to, const QuantRule& rule) {
  for (MoveBatch& batch : batches) {
    if (batch.to == to && Same(batch.rule, rule)) return batch;
  }
  batches.push_back({to, rule, {}});
  return batches.back();
}

}  // namespace tessera
