// `flashcache`: keeps the tokens whose K and V lie farthest from a smooth signal.
//
// FlashCache (arXiv 2511.16786). After the whole prompt, in every layer: each channel of K and V is
// a signal along the tokens; its base keeps the DCT coefficients m <= gamma N. A token's deviation
// is MSE(k, base) + MSE(v, base) over all heads, plain sum. A layer's outlier energy R, the share
// of energy above the cut-off, of K plus that of V, divides the budget keep * N * layers; each
// layer keeps the tokens of largest deviation. No attention score is read. One shot: what is
// generated stays.
//
// What the paper leaves open, and ours: orthonormal DCT-II (R uses Parseval's identity, so that
// R_k = sum over tokens |k - base|^2 / |k|^2 without a second pass over the spectrum); along the
// tokens; one set for all heads of a layer; keys after RoPE; budgets proportional to R, clipped to
// one block (16 tokens) and the whole, the excess redistributed, rounded by largest remainder;
// gamma .2, keep .2. scope=all is the paper's, scope=visual keeps all text: budget and R are then
// of the image tokens. segment=prompt is the paper's; segment=image takes a DCT for every image and
// every text between, so that modality borders do not ring. `sinks` and `recent` tokens, none as
// published, stay within the budget, or beyond it where they alone exceed it. budget=uniform is the
// paper's ablation without layer budgets. Rotation (akvq, hadamard) changes neither deviation nor
// R: it is orthonormal over channels.
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
    {"segment", ParameterSpec::Kind::kChoice, 0, 0, 0, "prompt|image", "what one DCT is taken of"},
    {"budget", ParameterSpec::Kind::kChoice, 0, 0, 0, "energy|uniform",
     "how layers share what stays"},
    {"sinks", ParameterSpec::Kind::kInteger, 0, 0, kMaxTokens, "", "first tokens that stay"},
    {"recent", ParameterSpec::Kind::kInteger, 0, 0, kMaxTokens, "", "last tokens that stay"},
};

constexpr int64_t kLeastTokens = PageTokens(Format::kRaw16);  // of a layer

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
    int64_t tokens = 0;            // that may be evicted or count against the budget
    int64_t forced = 0;            // of these, that stay as sinks or recent
    std::vector<uint8_t> stays;    // [prompt tokens]; not 0: forced, or beyond the scope
    std::vector<int32_t> staying;  // the tokens where it is not 0
  };
  struct Budget {
    int64_t total, min;  // over all layers, of one
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

  // R of the scope; `sums` as LowPassStats'.
  double OutlierEnergy(absl::Span<const double> sums) const {
    const auto in_scope = [&](int i) { return sums[4 + i] + (visual_only_ ? 0 : sums[i]); };
    const auto share = [&](int outlier, int all) {
      return in_scope(all) > 0 ? in_scope(outlier) / in_scope(all) : 0;
    };
    return share(0, 2) + share(1, 3);
  }

  // What stays anyway, and the `count` others of largest deviation: those of rank below `limit`,
  // which is one further for each that stays anyway and ranks before it.
  static std::vector<int32_t> Keep(const Scope& scope, int64_t count,
                                   absl::Span<const int32_t> ranks) {
    std::vector<int32_t> taken;  // ranks of what stays anyway, ascending
    for (const int32_t token : scope.staying) taken.push_back(ranks[token]);
    std::sort(taken.begin(), taken.end());
    int64_t limit = count;
    for (const int32_t rank : taken) limit += int64_t{rank < limit};
    std::vector<int32_t> kept(scope.staying.size() + count + 1);  // one more, written in vain
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
