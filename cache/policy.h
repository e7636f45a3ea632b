// A KV policy: the method that decides which tokens stay, and at how many bits.
//
// A policy is an optional Selector (which tokens of a prompt stay, layer by layer) and a Store (in
// which format, once they are older than the window). Text form (flag, request field, metrics
// label, benchmark row): `name`, `name(key=value, ...)`, `select(...)+store(...)`. Parsing is exact
// (policy_text.h has the grammar): an unknown name or parameter is an error that lists what exists
// and suggests the nearest. Methods are one file each in cache/policies/ and one line in the table
// of policy.cc. Threads: immutable after parsing, safe. Errors: INVALID_ARGUMENT, printable
// whatever the text.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "cache/storage.h"
#include "kernels/page_layout.h"

namespace tessera {

// What a method reads of the forward pass, to be computed only when asked for.
struct PolicyNeeds {
  bool residual_peaks = false;     // largest |h| of each token at each layer's input
  bool deviation = false;          // of K and V from their low-frequency part
  bool attention_columns = false;  // sums of attention weights over query rows
};

// One layer's answers to PolicyNeeds, [prompt tokens] each; empty where not needed.
struct LayerStats {
  absl::Span<const float> residual_peaks;
  absl::Span<const float> deviation;
  absl::Span<const float> attention_columns;
};

struct PromptView {
  absl::Span<const uint8_t> vision;  // [prompt tokens]; as for ClassAt
  int tokens() const { return static_cast<int>(vision.size()); }
};

// [layer] -> the kept tokens' indices, ascending.
using Selection = std::vector<std::vector<int32_t>>;

// Which tokens of a prompt stay. A pure function of its arguments.
class Selector {
 public:
  virtual ~Selector() = default;
  virtual std::string Text() const = 0;  // as Policy::Text
  virtual PolicyNeeds needs() const { return {}; }
  // `stats` has one entry a layer, or is empty when nothing is needed. Text that follows the prompt
  // is never evicted.
  virtual Selection Select(const PromptView& prompt, absl::Span<const LayerStats> stats,
                           const KvGeometry& geometry) const = 0;
  // Before anything was computed: a selection that takes at least as many bytes as any answer.
  // The answer itself where no statistics are needed.
  virtual Selection Costliest(const PromptView& prompt, const KvGeometry& geometry) const {
    return Select(prompt, {}, geometry);
  }
};

// In which format tokens are stored.
class Store {
 public:
  virtual ~Store() = default;
  virtual std::string Text() const = 0;
  virtual PolicyNeeds needs() const { return {}; }
  // Walsh-Hadamard on q, k and v of every layer; the tokens at 16 bit are rotated too.
  virtual bool rotated() const { return false; }
  virtual LayerStorage Layer(int layer) const = 0;  // always Valid()
};

class Policy {
 public:
  // Null: every token stays; at 16 bit.
  Policy(std::shared_ptr<const Selector> selector, std::shared_ptr<const Store> store);

  // The canonical text form, with every parameter that differs from its default. Parses to an equal
  // policy.
  std::string Text() const;
  PolicyNeeds needs() const;
  bool compresses() const { return selector_ != nullptr || store_ != nullptr; }
  bool selects() const { return selector_ != nullptr; }
  bool rotated() const { return store_ != nullptr && store_->rotated(); }
  Selection Select(const PromptView& prompt, absl::Span<const LayerStats> stats,
                   const KvGeometry& geometry) const;
  LayerStorage Layer(int layer) const { return store_ ? store_->Layer(layer) : LayerStorage(); }
  // Bit f: pages of Format f may be allocated.
  uint32_t FormatMask(const KvGeometry& geometry) const;
  // INVALID_ARGUMENT when a model of this shape cannot be run with this policy.
  absl::Status CheckGeometry(const KvGeometry& geometry) const;

  // --- costs, in bytes of pages (policy_costs.cc) ---
  // Held once the prompt is committed and `output_tokens` more are stored. Exact where needs() is
  // empty, otherwise a bound.
  int64_t SteadyBytes(const PromptView& prompt, int64_t output_tokens,
                      const KvGeometry& geometry) const;
  // The most that is held at any time until then, and SlabHeadroom: the prompt at 16 bit while it
  // is computed, one layer's new pages beside it during a layer-by-layer commit, and the pages that
  // a window exit writes before it frees those it read.
  int64_t PeakBytes(const PromptView& prompt, int64_t output_tokens,
                    const KvGeometry& geometry) const;
  // One slab for each format but RAW16: what part-filled slabs may strand. Once for all sequences.
  int64_t SlabHeadroom(const KvGeometry& geometry) const;
  // `tokens` at 16 bit in every layer.
  int64_t PeakBytes(int64_t tokens, const KvGeometry& geometry) const;

 private:
  std::shared_ptr<const Selector> selector_;
  std::shared_ptr<const Store> store_;
};

absl::StatusOr<std::shared_ptr<const Policy>> ParsePolicy(absl::string_view text);

enum class PolicyRole { kAlone, kSelector, kStore };  // a selector may stand before a store
struct PolicyInfo {
  std::string name;
  std::string parameters;  // "" or "keep=0.2, ..." with defaults, for --help and docs
  std::string summary;
  PolicyRole role = PolicyRole::kAlone;
};
std::vector<PolicyInfo> PolicyTable();

}  // namespace tessera
