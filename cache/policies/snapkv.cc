// `snapkv`: keeps the tokens that the prompt's last queries attend to, and those queries' own
// tokens.
//
// Source: SnapKV (arXiv 2404.14469; code at e216ddc). After prefill the last `window` query rows,
// the observation window, vote. A token's votes are its attention weights summed over those rows:
// float32 softmax, causal inside the window. The votes of the tokens before the window are pooled
// along the tokens, so that neighbours of attended tokens survive. Pooling is `kernel` wide with
// stride 1 and same padding. The average counts the padding as zeros, as the authors' framework
// does; the maximum ignores it.
//
// The budget minus the window goes to the tokens with most votes, and the whole window stays. A
// prompt within the budget is not changed. Every layer keeps the same number of tokens, and keys
// keep the positions they were computed with. `keep` and `tokens` count the window, as
// max_capacity_prompt does. A window larger than the budget shrinks to it. Defaults: window 32,
// kernel 5, average (the model hook's); the paper's experiments pool by maximum with kernel 7.
//
// Our change: one set for all heads of a layer, with votes summed over all query heads. The
// published code has one set per query head, which stores the keys of a group of heads once per
// query head. The usual repair averages the votes over the group.
#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "base/base.h"
#include "cache/policies/policies.h"
#include "cache/policy/largest.h"

namespace tessera {
namespace {

constexpr ParameterSpec kParameters[] = {
    {"keep", ParameterSpec::Kind::kReal, 0.2, 0, 1, "", "share of the tokens that stay"},
    {"tokens", ParameterSpec::Kind::kInteger, 0, 0, kMaxTokens, "",
     "tokens that stay in each layer, instead of keep (0: not used)"},
    {"window", ParameterSpec::Kind::kInteger, 32, 1, kMaxTokens, "",
     "last tokens, which vote and stay"},
    {"kernel", ParameterSpec::Kind::kInteger, 5, 1, 1023, "", "tokens pooled, an odd number"},
    {"pool", ParameterSpec::Kind::kChoice, 0, 0, 0, "avg|max", "how votes are pooled"},
};

class SnapKv final : public Selector {
 public:
  explicit SnapKv(const PolicyArguments& arguments)
      : text_(arguments.Canonical("snapkv")),
        keep_(arguments.Real("keep")),
        tokens_(arguments.Integer("tokens")),
        window_(arguments.Integer("window")),
        reach_(arguments.Integer("kernel") / 2),
        maximum_(arguments.Choice("pool") == "max") {}

  std::string Text() const override { return text_; }

  PolicyNeeds needs() const override {
    PolicyNeeds needs;
    needs.attention_rows = static_cast<int>(window_);
    return needs;
  }

  int64_t MaxTokens(const PromptView& prompt, const KvGeometry& geometry) const override {
    return geometry.layers * Budget(prompt.tokens());
  }

  Selection Select(const PromptView& prompt, absl::Span<const LayerStats> stats,
                   const KvGeometry& geometry) const override {
    Selection selection;
    for (int layer = 0; layer < geometry.layers; ++layer) {
      selection.push_back(Keep(prompt.tokens(), stats[layer].columns));
    }
    return selection;
  }

 private:
  int64_t Budget(int64_t n) const {
    const int64_t wanted = tokens_ > 0 ? tokens_ : std::llround(keep_ * static_cast<double>(n));
    return std::min(n, std::max<int64_t>(1, wanted));
  }

  std::vector<int32_t> Keep(int64_t n, absl::Span<const float> votes) const {
    const int64_t budget = Budget(n), window = std::min(window_, budget), older = n - window;
    std::vector<float> pooled;
    for (int64_t i = 0; i < older; ++i) {
      const int64_t begin = std::max<int64_t>(0, i - reach_), end = std::min(older, i + reach_ + 1);
      float best = votes[begin], sum = 0;
      for (int64_t j = begin; j < end; ++j) {
        best = std::max(best, votes[j]);
        sum += votes[j];
      }
      pooled.push_back(maximum_ ? best : sum);
    }
    std::vector<int32_t> kept = Largest(pooled, budget - window);
    for (int64_t i = older; i < n; ++i) kept.push_back(static_cast<int32_t>(i));
    return kept;
  }

  std::string text_;
  double keep_;
  int64_t tokens_, window_, reach_;
  bool maximum_;
};

absl::StatusOr<std::shared_ptr<const Selector>> MakeSnapKv(const PolicyArguments& arguments) {
  if (arguments.Given("keep") && arguments.Integer("tokens") > 0) {
    return absl::InvalidArgumentError(
        "kv policy 'snapkv': 'keep' and 'tokens' both say how much stays; give one");
  }
  if (arguments.Integer("kernel") % 2 == 0) {
    return absl::InvalidArgumentError("kv policy 'snapkv': kernel must be odd");
  }
  return std::make_shared<SnapKv>(arguments);
}

}  // namespace

PolicyEntry SnapKvPolicy() {
  return {"snapkv", "Keeps the tokens that the prompt's last queries attend to, and their own.",
          kParameters, MakeSnapKv, nullptr};
}

}  // namespace tessera
