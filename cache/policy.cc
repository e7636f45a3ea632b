#include "cache/policy.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "cache/policies/policies.h"
#include "kernels/base.h"

namespace tessera {
namespace {

// The table: one line a method.
std::vector<PolicyEntry> Entries() {
  return {
      NonePolicy(),  // every token at 16 bit
      WindowPolicy(),     RandomPolicy(),   FlashCachePolicy(), SnapKvPolicy(),
      H2oPolicy(),  // selectors
      RtnPolicy(),        HadamardPolicy(), KiviPolicy(),       AkvqPolicy(),
      CalibQuantPolicy(),  // stores
  };
}

PolicyRole RoleOf(const PolicyEntry& entry) {
  return entry.alone                      ? PolicyRole::kAlone
         : entry.make_selector != nullptr ? PolicyRole::kSelector
         : entry.make_store != nullptr    ? PolicyRole::kStore
                                          : PolicyRole::kAlone;
}

struct Stage {
  const PolicyEntry* entry;
  PolicyArguments arguments;
};

// Why the stages cannot follow each other, or OK.
absl::Status CheckComposition(const std::vector<Stage>& stages) {
  if (stages.size() == 1) return absl::OkStatus();
  const PolicyEntry &first = *stages[0].entry, &second = *stages[1].entry;
  const auto error = [&](const auto&... what) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv policy '", first.name, "+", second.name, "': ", what...));
  };
  for (const PolicyEntry* entry : {&first, &second}) {
    if (RoleOf(*entry) != PolicyRole::kAlone) continue;
    return error("'", entry->name,
                 "' decides alone which tokens stay and how they are stored; it cannot be "
                 "combined by '+'");
  }
  if (RoleOf(first) == RoleOf(second)) {
    return error(RoleOf(first) == PolicyRole::kSelector ? "both decide which tokens stay"
                                                        : "both decide how tokens are stored",
                 "; only one can");
  }
  if (RoleOf(first) == PolicyRole::kStore) {
    return error("tokens are chosen before they are stored: write '", second.name, "+", first.name,
                 "'");
  }
  if (stages.size() > 2) {
    return error("'", stages[2].entry->name,
                 "' follows, but a policy has at most two parts: which tokens stay, and how they "
                 "are stored");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Policy>> ParsePolicy(absl::string_view text) {
  const std::vector<PolicyEntry> entries = Entries();
  ASSIGN_OR_RETURN(const std::vector<PolicyStage> parsed, ParsePolicyText(text));
  std::vector<Stage> stages;
  for (const PolicyStage& stage : parsed) {
    const auto entry = std::find_if(entries.begin(), entries.end(), [&stage](const PolicyEntry& e) {
      return stage.name == e.name;
    });
    if (entry == entries.end()) {
      std::vector<absl::string_view> known;
      for (const PolicyEntry& e : entries) known.push_back(e.name);
      return absl::InvalidArgumentError(UnknownName("kv policy", stage.name, known));
    }
    ASSIGN_OR_RETURN(PolicyArguments arguments, PolicyArguments::Bind(stage, entry->parameters));
    stages.push_back({&*entry, std::move(arguments)});
  }
  RETURN_IF_ERROR(CheckComposition(stages));
  std::shared_ptr<const Selector> selector;
  std::shared_ptr<const Store> store;
  for (const Stage& stage : stages) {
    if (stage.entry->make_selector != nullptr) {
      ASSIGN_OR_RETURN(selector, stage.entry->make_selector(stage.arguments));
    } else if (stage.entry->make_store != nullptr) {
      ASSIGN_OR_RETURN(store, stage.entry->make_store(stage.arguments));
    }
  }
  return std::make_shared<const Policy>(std::move(selector), std::move(store));
}

std::vector<PolicyInfo> PolicyTable() {
  std::vector<PolicyInfo> table;
  for (const PolicyEntry& entry : Entries()) {
    table.push_back(
        {entry.name, DescribeParameters(entry.parameters), entry.summary, RoleOf(entry)});
  }
  return table;
}

Policy::Policy(std::shared_ptr<const Selector> selector, std::shared_ptr<const Store> store)
    : selector_(std::move(selector)), store_(std::move(store)) {}

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
  TESSERA_CHECK(!store.low_pass && store.attention_rows == 0);  // for selectors
  all.residual_peaks = std::max(all.residual_peaks, store.residual_peaks);
  all.residual_medians |= store.residual_medians;
  return all;
}

std::shared_ptr<const Policy> Policy::ForModel(absl::string_view family) const {
  std::shared_ptr<const Store> store = store_ ? store_->ForModel(family) : nullptr;
  return std::make_shared<const Policy>(selector_, store ? std::move(store) : store_);
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
