// One row of the table of methods (cache/policies/registry.cc), and what several methods share.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cache/policy/policy.h"
#include "cache/policy/policy_text.h"

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
  bool alone = false;  // a selector that no store may follow
};

// Returns the format of these codecs; CHECKs that the table has it.
Format FormatOf(const Codec& k, const Codec& v);
// The per-token format of `bits` (8, 4, 2 or 1) with scales of `group` channels (0: the head).
Format TokenFormat(int64_t bits, int64_t group);
constexpr const char* kTokenBits = "8|4|2|1";
constexpr const char* kGroups = "head|64|32";
// Where the grid of a per-token format lies: zero on one of its levels, or its lowest level on the
// (clipped) minimum.
constexpr const char* kOffsets = "integer|real";
// The value of a kChoice parameter with choices such as kTokenBits or kGroups; "head" is 0.
int64_t ChosenNumber(const PolicyArguments& arguments, absl::string_view name);

// The largest `window`, `recent`, ...: beyond every context, and sums stay in range.
constexpr double kMaxTokens = 1 << 24;

// A store that treats every layer alike.
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
