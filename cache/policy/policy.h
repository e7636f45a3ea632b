// A KV policy: the method that decides which tokens of a sequence stay in the cache, and at how
// many bits.
//
// A policy has an optional Selector (which tokens of a prompt stay, layer by layer) and an optional
// Store (the format of tokens that are older than the window). Its text form is used by the flag,
// the request field, metrics labels and benchmark rows: `name`, `name(key=value, ...)` or
// `selector(...)+store(...)`. Parsing is exact (policy_text.h has the grammar): the error for an
// unknown name or parameter lists the known ones and suggests the nearest. Each method is one file
// in cache/policies/ and one line in the table of registry.cc.
//
// Threads: safe; immutable after parsing. Errors: INVALID_ARGUMENT, printable for any text.
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

// The indices of the selected tokens: [layer][token], ascending.
using Selection = std::vector<std::vector<int32_t>>;

// The number of tokens that a layer with a token limit evicts at a time: one RAW16 page.
constexpr int kEvictTokens = PageTokens(Format::kRaw16);

// Chooses the tokens that stay. Every function is a pure function of its arguments.
class Selector {
 public:
  virtual ~Selector() = default;
  virtual std::string Text() const = 0;  // as Policy::Text
  virtual PolicyNeeds needs() const { return {}; }
  // Returns the tokens of the prompt that stay. `stats` has one entry per layer, or is empty when
  // needs() is empty. Tokens after the prompt are never evicted unless TokenLimit says so.
  virtual Selection Select(const PromptView& prompt, absl::Span<const LayerStats> stats,
                           const KvGeometry& geometry) const = 0;
  // Returns an upper bound of the prompt's tokens that stay, summed over all layers. Used for costs
  // before the statistics exist.
  virtual int64_t MaxTokens(const PromptView& prompt, const KvGeometry& geometry) const {
    return int64_t{geometry.layers} * prompt.tokens();
  }

  // Returns INVALID_ARGUMENT when the method cannot work on a model of this shape.
  virtual absl::Status CheckGeometry(const KvGeometry&) const { return absl::OkStatus(); }

  // Returns the number of tokens that every layer keeps while the answer grows (H2O), or 0 for no
  // limit. A layer keeps all of a shorter prompt. It evicts kEvictTokens whenever it holds that
  // many more than the limit. REQUIRES if not 0: needs().attention_steps, and no store.
  virtual int64_t TokenLimit(const PromptView&, const KvGeometry&) const { return 0; }
  // Returns the indices, ascending, of the `limit` tokens of a layer that stay. `columns` has the
  // attention weights that each token has received so far, summed; the oldest token comes first.
  virtual std::vector<int32_t> Keep(absl::Span<const float>, int64_t /*limit*/) const { return {}; }
};

// Chooses the formats in which tokens are stored.
class Store {
 public:
  virtual ~Store() = default;
  virtual std::string Text() const = 0;
  virtual PolicyNeeds needs() const { return {}; }
  // Returns whether q, k and v of every layer are rotated by a Walsh-Hadamard matrix. The tokens at
  // 16 bit are then rotated too.
  virtual bool rotated() const { return false; }
  virtual LayerStorage Layer(int layer) const = 0;  // always Valid()
  // Returns the tokens of `kept` that stay at 16 bit at any age: at most MaxPivots(layer),
  // ascending.
  virtual std::vector<int32_t> Pivots(int, absl::Span<const int32_t>, const LayerStats&) const {
    return {};
  }
  virtual int MaxPivots(int) const { return 0; }
  // Returns the store for a model of `family` ("llama", "mistral", "qwen2"); null means this one.
  virtual std::shared_ptr<const Store> ForModel(absl::string_view) const { return nullptr; }
};

class Policy {
 public:
  // A null selector keeps every token; a null store keeps them at 16 bit. `names` has the methods'
  // names in the order of the text form.
  Policy(std::shared_ptr<const Selector> selector, std::shared_ptr<const Store> store,
         std::vector<std::string> names);

  // Returns the canonical text form, with every parameter that differs from its default. It parses
  // to an equal policy.
  std::string Text() const;
  // Returns the methods' names without parameters, such as {"window", "rtn"}: safe as metrics
  // labels, because the set is closed.
  const std::vector<std::string>& names() const { return names_; }
  PolicyNeeds needs() const;
  // Returns this policy with the defaults that depend on the model's family filled in.
  std::shared_ptr<const Policy> ForModel(absl::string_view family) const;
  bool compresses() const { return selector_ != nullptr || store_ != nullptr; }
  bool selects() const { return selector_ != nullptr; }
  bool rotated() const { return store_ != nullptr && store_->rotated(); }
  Selection Select(const PromptView& prompt, absl::Span<const LayerStats> stats,
                   const KvGeometry& geometry) const;
  // The same as the Selector's functions.
  int64_t TokenLimit(const PromptView& prompt, const KvGeometry& geometry) const {
    return selector_ ? selector_->TokenLimit(prompt, geometry) : 0;
  }
  std::vector<int32_t> Keep(absl::Span<const float> columns, int64_t limit) const {
    return selector_->Keep(columns, limit);
  }
  // Returns the tokens of `kept` that stay at 16 bit at any age.
  Selection Pivots(const Selection& kept, absl::Span<const LayerStats> stats) const;
  int MaxPivots(int layer) const { return store_ ? store_->MaxPivots(layer) : 0; }
  LayerStorage Layer(int layer) const { return store_ ? store_->Layer(layer) : LayerStorage(); }
  // Returns a mask in which bit f says that pages of Format f may be allocated.
  uint32_t FormatMask(const KvGeometry& geometry) const;
  // Returns INVALID_ARGUMENT when a model of this shape cannot run with this policy.
  absl::Status CheckGeometry(const KvGeometry& geometry) const;

  // --- costs, in bytes of pages (policy_costs.cc) ---
  // Returns the bytes held once the prompt is committed and `output_tokens` more are stored. Exact
  // where nothing depends on statistics, else an upper bound:
  //   pivots: above the exact bytes by at most, per layer, the pivots' pages and one page of the
  //     layer's format;
  //   a selector with needs: by at most one page per run in each layer, if nothing else is unknown.
  int64_t SteadyBytes(const PromptView& prompt, int64_t output_tokens,
                      const KvGeometry& geometry) const;
  // Returns the peak of the bytes held until then, plus SlabHeadroom. While the prompt is computed,
  // it is held at 16 bit. A commit goes layer by layer and holds one layer's new pages in addition.
  // A window exit writes new pages before it frees those it read.
  int64_t PeakBytes(const PromptView& prompt, int64_t output_tokens,
                    const KvGeometry& geometry) const;
  // Returns the bytes that part-filled slabs can waste when there are several formats: one slab per
  // format, where RAW16 counts twice (short-lived pages, Arena::Allocate). It is needed once for
  // all sequences.
  int64_t SlabHeadroom(const KvGeometry& geometry) const;
  // Returns the bytes of `tokens` tokens at 16 bit in every layer.
  int64_t PeakBytes(int64_t tokens, const KvGeometry& geometry) const;

 private:
  std::shared_ptr<const Selector> selector_;
  std::shared_ptr<const Store> store_;
  std::vector<std::string> names_;
};

}  // namespace tessera
