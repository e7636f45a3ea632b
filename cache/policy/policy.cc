#include "cache/policy/policy.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/base.h"

namespace tessera {
Policy::Policy(std::shared_ptr<const Selector> selector, std::shared_ptr<const Store> store,
               std::vector<std::string> names)
    : selector_(std::move(selector)), store_(std::move(store)), names_(std::move(names)) {}

std::string Policy::Text() const {
  if (!compresses()) return "none";
  if (store_ == nullptr) return selector_->Text();
  if (selector_ == nullptr) return store_->Text();
  return absl::StrCat(selector_->Text(), "+", store_->Text());
}

std::vector<LowPassSegment> PolicyNeeds::Segments(const PromptView& prompt) const {
  std::vector<LowPassSegment> segments;
  if (!low_pass) return segments;
  for (int32_t first = 0, end; first < prompt.tokens(); first = end) {
    end = first + 1;
    while (end < prompt.tokens() &&
           (!low_pass_by_image || prompt.vision[end] == prompt.vision[first])) {
      ++end;
    }
    const int32_t tokens = end - first;
    const auto cut_off = static_cast<int32_t>(gamma * tokens);
    segments.push_back({first, tokens, std::min(tokens, cut_off + 1)});
  }
  return segments;
}

PolicyNeeds Policy::needs() const {
  PolicyNeeds all = selector_ ? selector_->needs() : PolicyNeeds();
  const PolicyNeeds store = store_ ? store_->needs() : PolicyNeeds();
  TESSERA_CHECK(!store.low_pass && store.attention_rows == 0);  // only selectors may need these
  all.residual_peaks = std::max(all.residual_peaks, store.residual_peaks);
  all.residual_medians |= store.residual_medians;
  return all;
}

std::shared_ptr<const Policy> Policy::ForModel(absl::string_view family) const {
  std::shared_ptr<const Store> store = store_ ? store_->ForModel(family) : nullptr;
  return std::make_shared<const Policy>(selector_, store ? store : store_, names_);
}

Selection Policy::Select(const PromptView& prompt, absl::Span<const LayerStats> stats,
                         const KvGeometry& geometry) const {
  if (selector_ != nullptr) return selector_->Select(prompt, stats, geometry);
  std::vector<int32_t> all(prompt.tokens());
  std::iota(all.begin(), all.end(), 0);
  return Selection(geometry.layers, all);
}

Selection Policy::Pivots(const Selection& kept, absl::Span<const LayerStats> stats) const {
  Selection pivots(kept.size());
  for (int layer = 0; layer < static_cast<int>(kept.size()); ++layer) {
    if (MaxPivots(layer) > 0) pivots[layer] = store_->Pivots(layer, kept[layer], stats[layer]);
  }
  return pivots;
}

uint32_t Policy::FormatMask(const KvGeometry& geometry) const {
  uint32_t mask = 1u << static_cast<int>(Format::kRaw16);
  for (int layer = 0; layer < geometry.layers; ++layer) {
    const LayerStorage storage = Layer(layer);
    mask |= 1u << static_cast<int>(storage.text) | 1u << static_cast<int>(storage.vision);
    if (HasHeader(storage.vision)) mask |= 1u << static_cast<int>(Format::kHeader);
  }
  return mask;
}

absl::Status Policy::CheckGeometry(const KvGeometry& geometry) const {
  if (selector_ != nullptr) RETURN_IF_ERROR(selector_->CheckGeometry(geometry));
  if (rotated() && !std::has_single_bit(static_cast<unsigned>(geometry.head_dim))) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv policy '", store_->Text(),
                     "' rotates by a Walsh-Hadamard matrix, whose size is a "
                     "power of two; the model's head size is ",
                     geometry.head_dim));
  }
  return absl::OkStatus();
}

}  // namespace tessera
