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
#include <iterator>
#include <memory>

#include "absl/status/status.h"
#include "cache/policies/budget.h"
#include "cache/policies/largest.h"
#include "cache/policies/policies.h"
#include "kernels/base.h"

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
    return geometry.layers * (prompt.tokens() - scope.size()) +
           BudgetOf(scope, geometry.layers).total;
  }

  Selection Select(const PromptView& prompt, absl::Span<const LayerStats> stats,
                   const KvGeometry& geometry) const override {
    const Scope scope = ScopeOf(prompt);
    const Budget budget = BudgetOf(scope, geometry.layers);
    std::vector<double> energy(geometry.layers);
    const int64_t n = scope.size();
    // Not zeroed: that would be one more pass over it.
    const auto deviations = std::make_unique_for_overwrite<float[]>(geometry.layers * n);
    for (int l = 0; l < geometry.layers; ++l) {
      energy[l] = Measure(scope.tokens, stats[l], &deviations[l * n]);
      if (uniform_) energy[l] = 1;
    }
    const std::vector<int64_t> sizes = ShareOut(budget.total, energy, budget.min, n);
    Selection selection;
    for (int l = 0; l < geometry.layers; ++l) {
      selection.push_back(
          Keep(scope, sizes[l] - scope.forced(), {&deviations[l * n], static_cast<size_t>(n)}));
    }
    return selection;
  }

 private:
  struct Scope {
    std::vector<int32_t> tokens;  // that may be evicted or count against the budget
    // Those that are judged, [first, first + judged) of them; the others stay as sinks or recent.
    int64_t first = 0, judged = 0;
    std::vector<int32_t> stay;  // of the whole prompt, all that is not judged

    int64_t size() const { return std::ssize(tokens); }
    int64_t forced() const { return size() - judged; }
  };
  struct Budget {
    int64_t total, min;  // over all layers, of one
  };

  Scope ScopeOf(const PromptView& prompt) const {
    Scope scope;
    for (int i = 0; i < prompt.tokens(); ++i) {
      const bool in_scope = !visual_only_ || prompt.vision[i] != 0;
      const bool sink = i < sinks_, forced = sink || i >= prompt.tokens() - recent_;
      if (in_scope) scope.tokens.push_back(i);
      if (!in_scope || forced) scope.stay.push_back(i);
      scope.first += int64_t{in_scope && sink};
      scope.judged += int64_t{in_scope && !forced};
    }
    return scope;
  }
  Budget BudgetOf(const Scope& scope, int layers) const {
    const int64_t whole = layers * scope.size();
    const int64_t wanted =
        tokens_ > 0 ? layers * tokens_ : std::llround(keep_ * static_cast<double>(whole));
    const int64_t least = std::max(scope.forced(), std::min<int64_t>(1, scope.size()));
    const int64_t total = std::clamp(wanted, layers * least, whole);
    return {total, std::max(least, std::min({kLeastTokens, scope.size(), total / layers}))};
  }

  // R of `tokens`, and the deviation of each (without its divisor, the number of channels, which is
  // the same for all). Tokens that follow one another, as nearly all do, are read where they are.
  static double Measure(absl::Span<const int32_t> tokens, const LayerStats& stats,
                        float* deviations) {
    constexpr size_t kBlock = 64;
    double sums[8] = {};  // of two tokens in turn, so that no addition waits for the one before
    for (size_t begin = 0; begin < tokens.size(); begin += kBlock) {
      const absl::Span<const int32_t> block = tokens.subspan(begin, kBlock);
      const float* rows = &stats.low_pass[4 * block.front()];
      float copy[4 * kBlock];
      if (block.size() < kBlock || block.back() - block.front() != kBlock - 1) {
        std::fill(std::begin(copy), std::end(copy), 0.f);
        for (size_t i = 0; i < block.size(); ++i) {
          std::copy_n(&stats.low_pass[4 * block[i]], 4, &copy[4 * i]);
        }
        rows = copy;
      }
      for (size_t i = 0; i < 4 * kBlock; i += 8) {
        for (size_t j = 0; j < 8; ++j) sums[j] += rows[i + j];
      }
      for (size_t i = 0; i < block.size(); ++i) {
        deviations[begin + i] = rows[4 * i] + rows[4 * i + 1];
      }
    }
    const auto share = [&](int outlier, int all) {
      const double whole = sums[all] + sums[4 + all];
      return whole > 0 ? (sums[outlier] + sums[4 + outlier]) / whole : 0;
    };
    return share(0, 2) + share(1, 3);
  }

  // What is not judged, and the `count` others of largest deviation.
  static std::vector<int32_t> Keep(const Scope& scope, int64_t count,
                                   absl::Span<const float> deviations) {
    std::vector<int32_t> kept,
        chosen = Largest(deviations.subspan(scope.first, scope.judged), count);
    if (scope.stay.empty()) return chosen;
    for (int32_t& token : chosen) token = scope.tokens[scope.first + token];
    std::merge(scope.stay.begin(), scope.stay.end(), chosen.begin(), chosen.end(),
               std::back_inserter(kept));
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
