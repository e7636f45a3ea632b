// Policy, second part: the memory that it costs, by formula, without the arena. Tests compare the
// formulas with the pages that SequenceCache allocates.
#include <algorithm>
#include <array>
#include <bit>

#include "base/base.h"
#include "cache/pages/arena.h"
#include "cache/policy/policy.h"

namespace tessera {
namespace {

int64_t RunBytes(Format format, int64_t tokens, const KvGeometry& geometry) {
  return CeilDiv<int64_t>(tokens, PageTokens(format)) * PageBytes(format, geometry);
}

// Returns the number of pivots, at most `most`, that costs the most bytes as RAW16 pages: one in
// each page that they can begin, since every other pivot also leaves a page of another format.
int64_t CostliestPivots(int64_t most) {
  constexpr int64_t kTokens = PageTokens(Format::kRaw16);
  return most == 0 ? 0 : (most - 1) / kTokens * kTokens + 1;
}

// The bytes that one layer holds, as a function of the tokens stored after the prompt.
class LayerCost {
 public:
  LayerCost(const LayerStorage& storage, int max_pivots, absl::Span<const int32_t> kept,
            const PromptView& prompt, const KvGeometry& geometry)
      : storage_(storage), max_pivots_(max_pivots), geometry_(geometry) {
    const auto tokens = static_cast<int64_t>(kept.size());
    int64_t older = std::max<int64_t>(0, tokens - storage.window);
    if (FillsWholePages(storage.text)) older -= older % PageTokens(storage.text);
    const std::vector<int32_t> segments = SegmentsOf(prompt.vision);
    std::vector<int64_t> of_segment(segments.empty() ? 0 : segments.back() + 1);
    for (int64_t i = 0; i < tokens; ++i) {
      const Format format = storage.FormatOf(ClassAt(prompt.vision, kept[i]));
      if (storage.exits() ? i >= older : format == Format::kRaw16) {
        Counts next = open_.empty() ? Counts() : open_.back();
        Count(kept[i], prompt, &next);
        open_.push_back(next);
      } else if (HasHeader(format)) {
        ++of_segment[segments[kept[i]]];
      } else {
        Count(kept[i], prompt, &closed_);
      }
    }
    for (const int64_t n : of_segment) {
      if (n == 0) continue;
      segment_bytes_ +=
          RunBytes(storage.vision, n, geometry) + PageBytes(Format::kHeader, geometry);
    }
    open_tokens_ = static_cast<int64_t>(open_.size());
    moves_ = open_tokens_ != prompt.tokens();
  }

  bool moves() const { return moves_; }  // whether the commit writes new pages
  int64_t Bytes(int64_t outputs) const { return Held(outputs, Exits(outputs)); }
  // Returns the bytes held while the window exit after `outputs` tokens has not yet freed the pages
  // it read.
  int64_t BytesInExit(int64_t outputs) const {
    return Held(outputs, Exits(outputs)) +
           RawBytes(outputs, outputs == 0 ? 0 : Exits(outputs - 1)) -
           RawBytes(outputs, Exits(outputs));
  }

 private:
  struct Counts {
    int64_t text = 0, vision = 0;
  };
  static void Count(int32_t token, const PromptView& prompt, Counts* counts) {
    ++(ClassAt(prompt.vision, token) == TokenClass::kText ? counts->text : counts->vision);
  }
  int64_t Exits(int64_t outputs) const {
    return !storage_.exits()
               ? 0
               : std::max<int64_t>(0, open_tokens_ + outputs - storage_.window) / kExitTokens;
  }
  int64_t RawBytes(int64_t outputs, int64_t exits) const {
    return RunBytes(Format::kRaw16, open_tokens_ + outputs - exits * kExitTokens, geometry_);
  }
  int64_t Held(int64_t outputs, int64_t exits) const {
    Counts closed = closed_;
    const int64_t left = exits * kExitTokens, of_prompt = std::min(left, open_tokens_);
    if (of_prompt > 0) {
      closed.text += open_[of_prompt - 1].text;
      closed.vision += open_[of_prompt - 1].vision;
    }
    closed.text += left - of_prompt;
    int64_t bytes = RawBytes(outputs, exits) + segment_bytes_;
    const int64_t outside = closed.text + closed.vision;
    const int64_t pivots = CostliestPivots(std::min<int64_t>(max_pivots_, outside));
    bytes += RunBytes(Format::kRaw16, pivots, geometry_);
    if (storage_.text == storage_.vision) {
      bytes += RunBytes(storage_.text, outside - pivots, geometry_);
    } else {  // pivots may be of either class: an upper bound
      bytes += RunBytes(storage_.text, closed.text, geometry_) +
               RunBytes(storage_.vision, closed.vision, geometry_);
    }
    return bytes;
  }

  LayerStorage storage_;
  int max_pivots_;
  KvGeometry geometry_;
  Counts closed_;             // tokens outside the window at the commit
  std::vector<Counts> open_;  // [i]: among the first i + 1 tokens of the open run
  int64_t open_tokens_ = 0;
  int64_t segment_bytes_ = 0;  // runs with headers: written at the commit only
  bool moves_ = false;
};

// A number of tokens in one format: how a layer stores its tokens at the highest cost, where only
// the number of kept tokens is known.
struct TokenShare {
  Format format;
  int64_t tokens;  // upper bound
};
// Returns the costliest split of a layer's `tokens`. `text` bounds how many may be text, where text
// is what stays at 16 bit.
std::vector<TokenShare> CostliestShares(const LayerStorage& storage, int64_t text, int64_t tokens,
                                        const KvGeometry& geometry) {
  if (storage.raw()) return {{Format::kRaw16, tokens}};
  const int64_t most = storage.exits() ? storage.window + kExitTokens - 1 : text;
  const int64_t open = std::min(tokens, most);
  const auto bytes = [&](Format f) { return PageBytes(f, geometry) / PageTokens(f); };
  const bool text_is_dearer = storage.exits() && bytes(storage.text) > bytes(storage.vision);
  return {{Format::kRaw16, open}, {text_is_dearer ? storage.text : storage.vision, tokens - open}};
}

// Returns the bytes that a layer holds in addition to its tokens' share of full pages: one page for
// each run, headers, pivots.
int64_t PartPageBytes(const LayerStorage& storage, int max_pivots, int64_t images,
                      const KvGeometry& geometry) {
  int64_t bytes =
      PageBytes(Format::kRaw16, geometry) + RunBytes(Format::kRaw16, max_pivots, geometry);
  if (storage.exits()) bytes += PageBytes(storage.text, geometry);
  if (storage.text == storage.vision) return bytes;
  return bytes + (HasHeader(storage.vision) ? images * (PageBytes(storage.vision, geometry) +
                                                        PageBytes(Format::kHeader, geometry))
                                            : PageBytes(storage.vision, geometry));
}

// The upper bound for a selector whose choice depends on statistics.
struct UnknownSelection {
  const PromptView& prompt;
  const KvGeometry& geometry;
  int64_t text = 0, images = 0;

  UnknownSelection(const PromptView& p, const KvGeometry& g) : prompt(p), geometry(g) {
    for (const uint8_t v : p.vision) text += v == 0;
    const std::vector<int32_t> segments = SegmentsOf(p.vision);
    images = segments.empty() ? 0 : segments.back() + 1;
  }
  // Returns the bytes of one layer that keeps the whole prompt.
  int64_t LayerBytes(const Policy& policy, int layer) const {
    const LayerStorage storage = policy.Layer(layer);
    int64_t bytes = PartPageBytes(storage, policy.MaxPivots(layer), images, geometry);
    for (const TokenShare& s : CostliestShares(storage, text, prompt.tokens(), geometry)) {
      bytes += RunBytes(s.format, s.tokens, geometry);
    }
    return bytes;
  }
  // Returns the bytes of `tokens` tokens of the prompt, wherever they cost the most over all
  // layers, and of `outputs` tokens in each layer.
  int64_t Bytes(const Policy& policy, int64_t tokens, int64_t outputs) const {
    std::vector<TokenShare> shares;
    int64_t bytes = 0;
    tokens += outputs * geometry.layers;
    for (int layer = 0; layer < geometry.layers; ++layer) {
      const LayerStorage storage = policy.Layer(layer);
      bytes += PartPageBytes(storage, policy.MaxPivots(layer), images, geometry);
      for (const TokenShare& s :
           CostliestShares(storage, text + outputs, prompt.tokens() + outputs, geometry)) {
        shares.push_back(s);
      }
    }
    const auto bytes_of = [&](const TokenShare& s) {
      return CeilDiv(PageBytes(s.format, geometry), int64_t{PageTokens(s.format)});
    };
    std::stable_sort(shares.begin(), shares.end(), [&](const TokenShare& a, const TokenShare& b) {
      return bytes_of(a) > bytes_of(b);
    });
    for (const TokenShare& share : shares) {
      const int64_t taken = std::min(tokens, share.tokens);
      bytes += taken * bytes_of(share);
      tokens -= taken;
    }
    return bytes;
  }
};

// The cost of a selector that limits every layer to `limit` tokens at 16 bit, from the commit on.
struct TokenLimitCost {
  int64_t limit, prompt, outputs;
  const KvGeometry& geometry;

  int64_t kept() const { return std::min(limit, prompt); }
  int64_t all() const { return kept() + outputs; }
  bool evicts() const { return all() >= limit + kEvictTokens; }
  int64_t Layers(int64_t tokens) const {
    return geometry.layers * RunBytes(Format::kRaw16, tokens, geometry);
  }
  int64_t SteadyBytes() const {
    return Layers(evicts() ? limit + (all() - limit) % kEvictTokens : all());
  }
  // Two moments can be the peak. In the commit the first layer's new pages exist in addition to the
  // prompt. In an eviction one layer's new pages exist in addition to what all layers held before.
  int64_t PeakBytes() const {
    const int64_t one = RunBytes(Format::kRaw16, kept(), geometry);
    const int64_t commit = Layers(prompt) + (kept() < prompt ? one : 0);
    const int64_t later =
        evicts() ? Layers(limit + kEvictTokens) + RunBytes(Format::kRaw16, limit, geometry)
                 : Layers(all());
    return std::max(commit, later);
  }
};

std::vector<LayerCost> LayerCosts(const Policy& policy, const PromptView& prompt,
                                  const KvGeometry& geometry) {
  const Selection selection = policy.Select(prompt, {}, geometry);
  std::vector<LayerCost> layers;
  for (int layer = 0; layer < geometry.layers; ++layer) {
    layers.emplace_back(policy.Layer(layer), policy.MaxPivots(layer), selection[layer], prompt,
                        geometry);
  }
  return layers;
}

}  // namespace

int64_t Policy::SteadyBytes(const PromptView& prompt, int64_t output_tokens,
                            const KvGeometry& geometry) const {
  if (const int64_t limit = TokenLimit(prompt, geometry); limit > 0) {
    return TokenLimitCost{limit, prompt.tokens(), output_tokens, geometry}.SteadyBytes();
  }
  if (selector_ != nullptr && selector_->needs().any()) {
    return UnknownSelection(prompt, geometry)
        .Bytes(*this, selector_->MaxTokens(prompt, geometry), output_tokens);
  }
  int64_t bytes = 0;
  for (const LayerCost& layer : LayerCosts(*this, prompt, geometry)) {
    bytes += layer.Bytes(output_tokens);
  }
  return bytes;
}

int64_t Policy::PeakBytes(const PromptView& prompt, int64_t output_tokens,
                          const KvGeometry& geometry) const {
  if (const int64_t limit = TokenLimit(prompt, geometry); limit > 0) {
    return TokenLimitCost{limit, prompt.tokens(), output_tokens, geometry}.PeakBytes() +
           SlabHeadroom(geometry);
  }
  const int64_t raw_layer = RunBytes(Format::kRaw16, prompt.tokens(), geometry);
  int64_t held = raw_layer * geometry.layers, peak = held;
  if (selector_ != nullptr && selector_->needs().any()) {
    // First the commit: layer by layer, each at its highest cost in addition to the pages of all.
    // Then a window exit with the pages that it reads.
    const UnknownSelection unknown(prompt, geometry);
    int64_t largest = 0;
    for (int layer = 0; layer < geometry.layers; ++layer) {
      const int64_t bytes = unknown.LayerBytes(*this, layer);
      largest = std::max(largest, bytes);
      held += std::max<int64_t>(0, bytes - raw_layer);
    }
    const int64_t exit = geometry.layers * RunBytes(Format::kRaw16, kExitTokens, geometry);
    return std::max(held + largest, SteadyBytes(prompt, output_tokens, geometry) + exit) +
           SlabHeadroom(geometry);
  }
  const std::vector<LayerCost> layers = LayerCosts(*this, prompt, geometry);
  for (const LayerCost& layer : layers) {
    if (!layer.moves()) continue;
    peak = std::max(peak, held + layer.Bytes(0));
    held += layer.Bytes(0) - raw_layer;
  }
  // Within kExitTokens steps every layer exits once and then holds as much or more than before. So
  // the last kExitTokens steps contain the peak.
  for (int64_t n = std::max<int64_t>(0, output_tokens - kExitTokens + 1); n <= output_tokens; ++n) {
    int64_t bytes = 0;
    for (const LayerCost& layer : layers) bytes += layer.BytesInExit(n);
    peak = std::max(peak, bytes);
  }
  return peak + SlabHeadroom(geometry);
}

int64_t Policy::SlabHeadroom(const KvGeometry& geometry) const {
  return (std::popcount(FormatMask(geometry)) - 1) * Arena::SlabBytes(geometry);
}

int64_t Policy::PeakBytes(int64_t tokens, const KvGeometry& geometry) const {
  return geometry.layers * RunBytes(Format::kRaw16, tokens, geometry);
}

}  // namespace tessera
