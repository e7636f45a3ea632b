// `random`: keeps tokens drawn at random, the control that every selector must beat.
//
// It has no paper. From the tokens in scope it keeps keep * n, rounded to the nearest, or `tokens`;
// at least one and at most all. The scope is all tokens, or vision tokens only, and then every text
// token stays as well. Each layer draws its own set without replacement. The draw depends on seed,
// layer and position only, so equal prompts give equal sets on every machine.
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "cache/policies/policies.h"

namespace tessera {
namespace {

constexpr ParameterSpec kParameters[] = {
    {"keep", ParameterSpec::Kind::kReal, 0.5, 0, 1, "", "share of the scope's tokens that stay"},
    {"tokens", ParameterSpec::Kind::kInteger, 0, 0, kMaxTokens, "",
     "tokens of the scope that stay, instead of keep (0: not used)"},
    {"seed", ParameterSpec::Kind::kInteger, 0, 0, 0x1p53, "", "seed of the draw"},
    {"scope", ParameterSpec::Kind::kChoice, 0, 0, 0, "all|visual", "tokens that may be evicted"},
};

// Source: the finalizer of Steele et al., "Fast splittable pseudorandom number generators" (OOPSLA
// 2014).
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

class Random final : public Selector {
 public:
  explicit Random(const PolicyArguments& arguments)
      : text_(arguments.Canonical("random")),
        keep_(arguments.Real("keep")),
        tokens_(arguments.Integer("tokens")),
        seed_(static_cast<uint64_t>(arguments.Integer("seed"))),
        visual_only_(arguments.Choice("scope") == "visual") {}

  std::string Text() const override { return text_; }
  Selection Select(const PromptView& prompt, absl::Span<const LayerStats>,
                   const KvGeometry& geometry) const override {
    Selection selection;
    for (int layer = 0; layer < geometry.layers; ++layer) selection.push_back(Draw(prompt, layer));
    return selection;
  }

 private:
  std::vector<int32_t> Draw(const PromptView& prompt, int layer) const {
    const uint64_t layer_seed = Mix(Mix(seed_) + static_cast<uint64_t>(layer));
    std::vector<int32_t> kept;
    std::vector<std::pair<uint64_t, int32_t>> scope;  // (random number, position)
    for (int i = 0; i < prompt.tokens(); ++i) {
      if (visual_only_ && prompt.vision[i] == 0) {
        kept.push_back(i);
      } else {
        scope.emplace_back(Mix(layer_seed + static_cast<uint64_t>(i)), i);
      }
    }
    const auto n = static_cast<int64_t>(scope.size());
    const int64_t wanted = tokens_ > 0 ? tokens_ : std::llround(keep_ * static_cast<double>(n));
    const int64_t count = std::min(n, std::max<int64_t>(1, wanted));
    std::nth_element(scope.begin(), scope.begin() + count, scope.end());
    for (int64_t i = 0; i < count; ++i) kept.push_back(scope[i].second);
    std::sort(kept.begin(), kept.end());
    return kept;
  }

  std::string text_;
  double keep_;
  int64_t tokens_;
  uint64_t seed_;
  bool visual_only_;
};

absl::StatusOr<std::shared_ptr<const Selector>> MakeRandom(const PolicyArguments& arguments) {
  if (arguments.Given("keep") && arguments.Integer("tokens") > 0) {
    return absl::InvalidArgumentError(
        "kv policy 'random': 'keep' and 'tokens' both say how much stays; give one");
  }
  return std::make_shared<Random>(arguments);
}

}  // namespace

PolicyEntry RandomPolicy() {
  return {"random", "Keeps tokens drawn at random: the control for selectors.", kParameters,
          MakeRandom, nullptr};
}

}  // namespace tessera
