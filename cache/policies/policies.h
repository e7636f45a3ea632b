// What a method's file in this folder hands to the table of cache/policy.cc: one function each.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cache/policy.h"
#include "cache/policy_text.h"

namespace tessera {

// One row of the table. Everything it points to is constant and lives for ever.
struct PolicyEntry {
  const char* name;
  const char* summary;  // one sentence
  absl::Span<const ParameterSpec> parameters;
  // One of the two is set, or neither for what stands alone. May refuse combinations of values that
  // are right one by one (INVALID_ARGUMENT).
  absl::StatusOr<std::shared_ptr<const Selector>> (*make_selector)(const PolicyArguments&);
  absl::StatusOr<std::shared_ptr<const Store>> (*make_store)(const PolicyArguments&);
};

PolicyEntry NonePolicy();
// Selectors.
PolicyEntry WindowPolicy();
PolicyEntry RandomPolicy();
PolicyEntry FlashCachePolicy();
// Stores.
PolicyEntry RtnPolicy();
PolicyEntry HadamardPolicy();
PolicyEntry KiviPolicy();
PolicyEntry AkvqPolicy();

// The per-token format of `bits` (8, 4, 2 or 1).
Format TokenFormat(int64_t bits);
constexpr const char* kTokenBits = "8|4|2|1";
// The value of a kChoice parameter with choices such as kTokenBits.
int64_t BitsOf(const PolicyArguments& arguments, absl::string_view name);

// The largest `window`, `recent`, ...: beyond every context, and sums stay in range.
constexpr double kMaxTokens = 1 << 24;

// A store that keeps every layer and both classes in one format.
class UniformStore : public Store {
 public:
  UniformStore(std::string text, bool rotated, const LayerStorage& layer)
      : text_(std::move(text)), rotated_(rotated), layer_(layer) {}
  std::string Text() const override { return text_; }
  bool rotated() const override { return rotated_; }
  LayerStorage Layer(int) const override { return layer_; }

 private:
  std::string text_;
  bool rotated_;
  LayerStorage layer_;
};

}  // namespace tessera
