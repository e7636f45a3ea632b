// The row that each method adds to the table of cache/policies/registry.cc, and helpers that
// several methods share.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cache/policy/policy.h"
#include "cache/policy/policy_text.h"

namespace tessera {

// A method's row. Everything that it points to is constant and has static storage.
struct PolicyEntry {
  const char* name;
  const char* summary;  // one sentence
  absl::Span<const ParameterSpec> parameters;
  // One of the two is set, or neither for a method that stores everything as it is. Each may refuse
  // a combination of valid values (INVALID_ARGUMENT).
  absl::StatusOr<std::shared_ptr<const Selector>> (*make_selector)(const PolicyArguments&);
  absl::StatusOr<std::shared_ptr<const Store>> (*make_store)(const PolicyArguments&);
  bool alone = false;  // a selector that cannot be combined with a store
};

// Returns the format with these codecs for K and V. CHECKs that kFormatTable has it.
Format FormatOf(const Codec& k, const Codec& v);
// Returns the per-token format of `bits` (8, 4, 2 or 1) with one scale per `group` channels (0: one
// per head).
Format TokenFormat(int64_t bits, int64_t group);
constexpr const char* kTokenBits = "8|4|2|1";
constexpr const char* kGroups = "head|64|32";
// The zero point of a per-token format. "integer": zero lies on one of the levels. "real": the
// lowest level lies on the (clipped) minimum.
constexpr const char* kOffsets = "integer|real";
// Returns the chosen number of a kChoice parameter with choices such as kTokenBits or kGroups;
// "head" gives 0.
int64_t ChosenNumber(const PolicyArguments& arguments, absl::string_view name);

// The largest value of `window`, `recent` and similar parameters: larger than every context, and
// small enough that sums do not overflow.
constexpr double kMaxTokens = 1 << 24;

// A store with the same storage in every layer.
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
