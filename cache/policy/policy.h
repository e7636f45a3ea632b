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
#include "cache/policy/policy_stats.h"
#include "cache/policy/storage.h"
#include "kernels/layout/page_layout.h"

namespace tessera {

// [layer] -> tokens' indices, ascending.
using Selection = std::vector<std::vector<int32_t>>;

// A layer whose selector bounds it gives up so many tokens at a time: a page of RAW16.
constexpr int kEvictTokens = PageTokens(Format::kRaw16);

// Which tokens stay. A pure function of its arguments.
class Selector {
 public:
  virtual ~Selector() = default;
  virtual std::string Text() const = 0;  // as Policy::Text
  virtual PolicyNeeds needs() const { return {}; }
  // `stats` has one entry a layer, or is empty when nothing is needed. What follows the prompt is
  // never evicted, unless TokenLimit says so.
  virtual Selection Select(const PromptView& prompt, absl::Span<const LayerStats> stats,
                           const KvGeometry& geometry) const = 0;
  // The most tokens that an answer keeps, over all layers; for costs, before statistics are there.
  virtual int64_t MaxTokens(const PromptView& prompt, const KvGeometry& geometry) const {
    return int64_t{geometry.layers} * prompt.tokens();
  }

  // INVALID_ARGUMENT when it cannot work on a model of this shape.
  virtual absl::Status CheckGeometry(const KvGeometry&) const { return absl::OkStatus(); }

  // Not 0: every layer keeps this many tokens of the prompt (or all, if there are fewer), and gives
  // up kEvictTokens whenever it holds that many more. REQUIRES then: needs().attention_steps, and
  // no store.
  virtual int64_t TokenLimit(const PromptView&, const KvGeometry&) const { return 0; }
  // Which `limit` of a layer's tokens stay, as ascending indices; `columns` are the sums so far of
  // the attention that each received, oldest token first.
  virtual std::vector<int32_t> Keep(absl::Span<const float>, int64_t /*limit*/) const { return {}; }
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
  // Tokens of `kept` that stay at 16 bit whatever their age: at most MaxPivots(layer), ascending.
  virtual std::vector<int32_t> Pivots(int, absl::Span<const int32_t>, const LayerStats&) const {
    return {};
  }
  virtual int MaxPivots(int) const { return 0; }
  // The store for a model of `family` ("llama", "mistral", "qwen2"); null: this one.
  virtual std::shared_ptr<const Store> ForModel(absl::string_view) const { return nullptr; }
};

class Policy {
 public:
  // A null selector keeps every token; a null store keeps 16 bit. `names`: the methods' names, in
  // the order of the text form.
  Policy(std::shared_ptr<const Selector> selector, std::shared_ptr<const Store> store,
         std::vector<std::string> names);

  // The canonical text form, with every parameter that differs from its default. Parses to an equal
  // policy.
  std::string Text() const;
  // The methods' names without parameters: {"window", "rtn"}. Values of a closed set.
  const std::vector<std::string>& names() const { return names_; }
  PolicyNeeds needs() const;
  // The same policy with what it derives from the kind of model.
  std::shared_ptr<const Policy> ForModel(absl::string_view family) const;
  bool compresses() const { return selector_ != nullptr || store_ != nullptr; }
  bool selects() const { return selector_ != nullptr; }
  bool rotated() const { return store_ != nullptr && store_->rotated(); }
  Selection Select(const PromptView& prompt, absl::Span<const LayerStats> stats,
                   const KvGeometry& geometry) const;
  // As the Selector's.
  int64_t TokenLimit(const PromptView& prompt, const KvGeometry& geometry) const {
    return selector_ ? selector_->TokenLimit(prompt, geometry) : 0;
  }
  std::vector<int32_t> Keep(absl::Span<const float> columns, int64_t limit) const {
    return selector_->Keep(columns, limit);
  }
  // Tokens of `kept` that stay at 16 bit whatever their age.
  Selection Pivots(const Selection& kept, absl::Span<const LayerStats> stats) const;
  int MaxPivots(int layer) const { return store_ ? store_->MaxPivots(layer) : 0; }
  LayerStorage Layer(int layer) const { return store_ ? store_->Layer(layer) : LayerStorage(); }
  // Bit f: pages of Format f may be allocated.
  uint32_t FormatMask(const KvGeometry& geometry) const;
  // INVALID_ARGUMENT when a model of this shape cannot be run with this policy.
  absl::Status CheckGeometry(const KvGeometry& geometry) const;

  // --- costs, in bytes of pages (policy_costs.cc) ---
  // Held once the prompt is committed and `output_tokens` more are stored. Exact where nothing
  // depends on statistics. With pivots a bound, and above what
  // is held by at most their pages and one of the layer's format in each layer; a selector with
  // needs: a bound, above it by at most a page a run in each layer where nothing else is unknown.
  int64_t SteadyBytes(const PromptView& prompt, int64_t output_tokens,
                      const KvGeometry& geometry) const;
  // The most that is held at any time until then, and SlabHeadroom: the prompt at 16 bit while it
  // is computed, one layer's new pages beside it during a layer-by-layer commit, and the pages that
  // a window exit writes before it frees those it read.
  int64_t PeakBytes(const PromptView& prompt, int64_t output_tokens,
                    const KvGeometry& geometry) const;
  // What part-filled slabs may strand, where there are several formats: one slab for each, and
  // RAW16 has two kinds (Arena::Allocate). Once for all sequences.
  int64_t SlabHeadroom(const KvGeometry& geometry) const;
  // `tokens` at 16 bit in every layer.
  int64_t PeakBytes(int64_t tokens, const KvGeometry& geometry) const;

 private:
  std::shared_ptr<const Selector> selector_;
  std::shared_ptr<const Store> store_;
  std::vector<std::string> names_;
};

}  // namespace tessera
