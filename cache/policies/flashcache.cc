// `flashcache`: keeps the tokens whose K and V deviate most from a smooth signal.
//
// Source: FlashCache (arXiv 2511.16786). It runs once after the whole prompt, in every layer. Each
// channel of K and V is a signal along the tokens; its base keeps the DCT coefficients m <= gamma
// N. A token's deviation is MSE(k, base) + MSE(v, base), a plain sum over all heads. A layer's
// outlier energy R is the share of energy above the cut-off, K's plus V's. The budget keep * N *
// layers is divided in proportion to R. Each layer keeps the tokens with the largest deviation. No
// attention score is read. Generated tokens all stay.
//
// Our choices where the paper is silent:
// - An orthonormal DCT-II. Parseval's identity then gives R_k = sum over tokens of
//   |k - base|^2 / |k|^2 without a second pass over the spectrum.
// - The transform runs along the tokens, on keys after RoPE. All heads of a layer share one set.
// - Layer budgets are proportional to R, clipped to one block (16 tokens) and to the whole prompt.
//   The excess is redistributed, rounding is by largest remainder.
// - gamma .2 and keep .2 are the defaults.
// - scope=all is the paper's. scope=visual keeps all text; budget and R then count image tokens.
// - segment=prompt is the paper's. segment=image takes one DCT per image and per text between
//   images, so that the borders between modalities do not ring.
// - `sinks` and `recent` tokens (the paper has none) count against the budget, unless they alone
//   exceed it.
// - budget=uniform is the paper's ablation without layer budgets.
//
// Rotation (akvq, hadamard) changes neither deviation nor R: it is orthonormal over channels.
#include <algorithm>
#include <cmath>
#include <memory>

#include "absl/status/status.h"
#include "cache/policies/policies.h"
#include "cache/policy/budget.h"

namespace tessera {
namespace {

constexpr ParameterSpec kParameters[] = {
    {"keep", ParameterSpec::Kind::kReal, 0.2, 0, 1, "", "share of the scope's tokens that stay"},
    {"tokens", ParameterSpec::Kind::kInteger, 0, 0, kMaxTokens, "",
     "tokens of the scope that stay, mean over layers, instead of keep (0: not used)"},
    {"gamma", ParameterSpec::Kind::kReal, 0.2, 0, 1, "",
     "share of the DCT coefficients that make the base"},
    {"scope", ParameterSpec::Kind::kChoice, 0, 0, 0, "all|visual", "tokens that may be evicted"},
    {"segment", ParameterSpec::Kind::kChoice, 0, 0, 0, "prompt|image", "the tokens of one DCT"},
    {"budget", ParameterSpec::Kind::kChoice, 0, 0, 0, "energy|uniform",
     "how layers share the budget"},
    {"sinks", ParameterSpec::Kind::kInteger, 0, 0, kMaxTokens, "", "first tokens that stay"},
    {"recent", ParameterSpec::Kind::kInteger, 0, 0, kMaxTokens, "", "last tokens that stay"},
};

constexpr int64_t kLeastTokens = PageTokens(Format::kRaw16);  // per layer

class FlashCache final : public Selector {
 public:
  explicit FlashCache(const PolicyArguments& arguments)
      : text_(arguments.Canonical("flashcache")),
        keep_(arguments.Real("keep")),
        tokens_(arguments.Integer("tokens")),
        gamma_(arguments.Real("gamma")),
        visual_only_(arguments.Choice("scope") == "visual"),
        by_image_(arguments.Choice("segment") == "image"),
        uniform_(arguments.Choice("budget") == "uniform"),
        sinks_(arguments.Integer("sinks")),
        recent_(arguments.Integer("recent")) {}

  std::string Text() const override { return text_; }

  PolicyNeeds needs() const override {
    PolicyNeeds needs;
    needs.low_pass = true;
    needs.gamma = gamma_;
    needs.low_pass_by_image = by_image_;
    return needs;
  }

  int64_t MaxTokens(const PromptView& prompt, const KvGeometry& geometry) const override {
    const Scope scope = ScopeOf(prompt);
    return geometry.layers * (prompt.tokens() - scope.tokens) +
           BudgetOf(scope, geometry.layers).total;
  }

  Selection Select(const PromptView& prompt, absl::Span<const LayerStats> stats,
                   const KvGeometry& geometry) const override {
    const Scope scope = ScopeOf(prompt);
    const Budget budget = BudgetOf(scope, geometry.layers);
    std::vector<double> energy;
    for (const LayerStats& layer : stats) {
      energy.push_back(uniform_ ? 1 : OutlierEnergy(layer.low_pass.sums));
    }
    const std::vector<int64_t> sizes = ShareOut(budget.total, energy, budget.min, scope.tokens);
    Selection selection;
    for (int l = 0; l < geometry.layers; ++l) {
      selection.push_back(Keep(scope, sizes[l] - scope.forced, stats[l].low_pass.ranks));
    }
    return selection;
  }

 private:
  struct Scope {
    int64_t tokens = 0;            // that may be evicted, or count against the budget
    int64_t forced = 0;            // those of them that stay as sinks or recent
    std::vector<uint8_t> stays;    // [prompt tokens]; not 0: forced, or outside the scope
    std::vector<int32_t> staying;  // the tokens with stays[token] != 0
  };
  struct Budget {
    int64_t total;  // over all layers
    int64_t min;    // per layer
  };

  Scope ScopeOf(const PromptView& prompt) const {
    Scope scope;
    scope.stays.resize(prompt.tokens());
    for (int i = 0; i < prompt.tokens(); ++i) {
      const bool in_scope = !visual_only_ || prompt.vision[i] != 0;
      const bool forced = i < sinks_ || i >= prompt.tokens() - recent_;
      scope.tokens += int64_t{in_scope};
      scope.forced += int64_t{in_scope && forced};
      if (in_scope && !forced) continue;
      scope.stays[i] = 1;
      scope.staying.push_back(i);
    }
    return scope;
  }
  Budget BudgetOf(const Scope& scope, int layers) const {
    const int64_t whole = layers * scope.tokens;
    const int64_t wanted =
        tokens_ > 0 ? layers * tokens_ : std::llround(keep_ * static_cast<double>(whole));
    const int64_t least = std::max(scope.forced, std::min<int64_t>(1, scope.tokens));
    const int64_t total = std::clamp(wanted, layers * least, whole);
    return {total, std::max(least, std::min({kLeastTokens, scope.tokens, total / layers}))};
  }

  // Returns R of the scope's tokens. `sums` is LowPassStats::sums.
  double OutlierEnergy(absl::Span<const double> sums) const {
    const auto in_scope = [&](int i) { return sums[4 + i] + (visual_only_ ? 0 : sums[i]); };
    const auto share = [&](int outlier, int all) {
      return in_scope(all) > 0 ? in_scope(outlier) / in_scope(all) : 0;
    };
    return share(0, 2) + share(1, 3);
  }

  // Returns the tokens that must stay and the `count` others with the largest deviation. The
  // others have ranks below `limit`, which grows by one for each token that must stay and ranks
  // before it.
  static std::vector<int32_t> Keep(const Scope& scope, int64_t count,
                                   absl::Span<const int32_t> ranks) {
    std::vector<int32_t> taken;  // ranks of the tokens that must stay, ascending
    for (const int32_t token : scope.staying) taken.push_back(ranks[token]);
    std::sort(taken.begin(), taken.end());
    int64_t limit = count;
    for (const int32_t rank : taken) limit += int64_t{rank < limit};
    std::vector<int32_t> kept(scope.staying.size() + count +
                              1);  // the extra element absorbs the last write
    int64_t at = 0;
    for (size_t i = 0; i < ranks.size(); ++i) {  // no branch depends on a rank
      kept[at] = static_cast<int32_t>(i);
      at += int64_t{ranks[i] < limit} | scope.stays[i];
    }
    kept.pop_back();
    return kept;
  }

  std::string text_;
  double keep_;
  int64_t tokens_;
  double gamma_;
  bool visual_only_, by_image_, uniform_;
  int64_t sinks_, recent_;
};

absl::StatusOr<std::shared_ptr<const Selector>> MakeFlashCache(const PolicyArguments& arguments) {
  if (arguments.Given("keep") && arguments.Integer("tokens") > 0) {
    return absl::InvalidArgumentError(
        "kv policy 'flashcache': 'keep' and 'tokens' both say how much stays; give one");
  }
  return std::make_shared<FlashCache>(arguments);
}

}  // namespace

PolicyEntry FlashCachePolicy() {
  return {"flashcache", "Keeps the tokens whose K and V deviate most from their low-pass base.",
          kParameters, MakeFlashCache, nullptr};
}

}  // namespace tessera
