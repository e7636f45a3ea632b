// `h2o`: keeps the tokens that received most attention so far, and the newest.
//
// Source: Heavy-Hitter Oracle (arXiv 2306.14048; code at ac75c2a). Every token has an accumulator:
// the sum of the attention weights that all query rows gave it, those of the prompt and of every
// decode step. The weights are a float32 softmax, the sums are plain, so early tokens, which more
// rows see, have more summands. After the prompt and after every step the budget takes the newest
// tokens and, among the others, those with the largest sums. An evicted token loses its sum; the
// others go on accumulating. The budget is the same in every layer: a share of the prompt, fixed
// from then on. Keys keep the positions they were computed with (the authors' variant without
// streaming). The defaults are the paper's main setting: 20 % of the prompt, half of it recent.
//
// Our changes:
// - One set for all heads of a layer, by the sum over query heads (published: one set per head).
// - Tokens are evicted kEvictTokens = 16 at a time, when a layer holds budget + 16 (published: one
//   per step). Pages are append-only, so survivors move into fresh pages once a page of new tokens
//   exists. A layer holds budget .. budget + 15 tokens, never fewer than published. The sums that
//   decide are up to 15 rows older than a token's last chance to be evicted.
// - A share is at least 16 tokens: a fifth of a short prompt is too little for a long answer.
// - If the commit is before the prompt's end, the rest of the prompt is treated as decode steps.
// - Tokens are stored at 16 bit only: the sums need the attention of every step, which is measured
//   on 16-bit pages.
#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "cache/policies/policies.h"
#include "cache/policy/largest.h"

namespace tessera {
namespace {

constexpr ParameterSpec kParameters[] = {
    {"keep", ParameterSpec::Kind::kReal, 0.2, 0, 1, "", "share of the prompt's tokens that stay"},
    {"tokens", ParameterSpec::Kind::kInteger, 0, 0, kMaxTokens, "",
     "tokens that stay in each layer, instead of keep (0: not used)"},
    {"bytes", ParameterSpec::Kind::kInteger, 0, 0, 0x1p50, "",
     "most bytes of pages between steps, over all layers, instead of keep (0: not used)"},
    {"recent", ParameterSpec::Kind::kReal, 0.5, 0, 1, "", "share of what stays: the newest tokens"},
};

constexpr int64_t kLeastTokens = kEvictTokens;

// Returns the pages that each layer may hold for `bytes` over all layers. They have room for budget
// + kEvictTokens tokens.
int64_t PagesOf(int64_t bytes, const KvGeometry& geometry) {
  return bytes / (geometry.layers * PageBytes(Format::kRaw16, geometry));
}

class H2o final : public Selector {
 public:
  explicit H2o(const PolicyArguments& arguments)
      : text_(arguments.Canonical("h2o")),
        keep_(arguments.Real("keep")),
        tokens_(arguments.Integer("tokens")),
        bytes_(arguments.Integer("bytes")),
        recent_(arguments.Real("recent")) {}

  std::string Text() const override { return text_; }

  PolicyNeeds needs() const override {
    PolicyNeeds needs;
    needs.attention_rows = static_cast<int>(kMaxTokens);  // all rows
    needs.attention_steps = true;
    return needs;
  }

  absl::Status CheckGeometry(const KvGeometry& geometry) const override {
    if (bytes_ == 0 || PagesOf(bytes_, geometry) >= 2) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("kv policy '", text_, "': two pages in each of the model's ", geometry.layers,
                     " layers are the minimum; they take ",
                     2 * geometry.layers * PageBytes(Format::kRaw16, geometry), " bytes"));
  }

  int64_t TokenLimit(const PromptView& prompt, const KvGeometry& geometry) const override {
    if (bytes_ > 0) {
      const int64_t pages = std::max<int64_t>(1, PagesOf(bytes_, geometry) - 1);
      return std::min(kEvictTokens * pages, static_cast<int64_t>(kMaxTokens));
    }
    if (tokens_ > 0) return tokens_;
    return std::max<int64_t>(kLeastTokens, std::llround(keep_ * prompt.tokens()));
  }

  int64_t MaxTokens(const PromptView& prompt, const KvGeometry& geometry) const override {
    return geometry.layers * std::min<int64_t>(prompt.tokens(), TokenLimit(prompt, geometry));
  }

  Selection Select(const PromptView& prompt, absl::Span<const LayerStats> stats,
                   const KvGeometry& geometry) const override {
    Selection selection;
    for (int layer = 0; layer < geometry.layers; ++layer) {
      selection.push_back(Keep(stats[layer].columns, TokenLimit(prompt, geometry)));
    }
    return selection;
  }

  std::vector<int32_t> Keep(absl::Span<const float> sums, int64_t limit) const override {
    const auto n = static_cast<int64_t>(sums.size()), budget = std::min(n, limit);
    const int64_t recent = std::llround(recent_ * static_cast<double>(budget));
    const int64_t older = n - recent, heavy = budget - recent;
    std::vector<int32_t> kept = Largest(sums.first(older), heavy);
    for (int64_t i = older; i < n; ++i) kept.push_back(static_cast<int32_t>(i));
    return kept;
  }

 private:
  std::string text_;
  double keep_;
  int64_t tokens_, bytes_;
  double recent_;
};

absl::StatusOr<std::shared_ptr<const Selector>> MakeH2o(const PolicyArguments& arguments) {
  const int sizes = int{arguments.Given("keep")} + int{arguments.Integer("tokens") > 0} +
                    int{arguments.Integer("bytes") > 0};
  if (sizes > 1) {
    return absl::InvalidArgumentError(
        "kv policy 'h2o': 'keep', 'tokens' and 'bytes' all say how much stays; give one");
  }
  return std::make_shared<H2o>(arguments);
}

}  // namespace

PolicyEntry H2oPolicy() {
  return {.name = "h2o",
          .summary = "Keeps what received most attention so far and the newest, at every step.",
          .parameters = kParameters,
          .make_selector = MakeH2o,
          .make_store = nullptr,
          .alone = true};
}

}  // namespace tessera
