// `h2o`: keeps the tokens that received most attention so far, and the newest.
//
// Heavy-Hitter Oracle (arXiv 2306.14048; code at ac75c2a). Every token has an accumulator: the
// attention weights that all query rows gave it, of the prompt and of every decode step, float32
// softmax, plain sums (so that early tokens, which more rows see, have more summands). After the
// prompt and after every step the budget is filled with the newest tokens and, of the others, those
// of the largest sums; who leaves takes its sum along, who stays goes on collecting. The same
// budget in every layer: a share of the prompt, fixed from then on. Keys keep the positions they
// were computed with (the authors' variant that does not stream). Defaults as in the paper's main
// setting: 20 % of the prompt, half of it recent.
//
// Ours:
// - One set for all heads of a layer, by the sum over query heads (published: one each).
// - Tokens leave kEvictTokens = 16 at a time, when a layer holds budget + 16: pages are
// append-only,
//   and survivors move into fresh ones once a page of new tokens is there (published: one token
//   leaves at every step). A layer so holds budget .. budget + 15 tokens, never fewer than
//   published, and the sums that decide are up to 15 rows older than a token's last chance to
//   leave.
// - A share is at least 16 tokens: a fifth of a short prompt is no memory for a long answer.
// - What follows the commit, when that is before the prompt's end, is treated as decode steps are.
// - Stored at 16 bit and nothing else: the sums need the attention of every step, which is measured
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

// Of a layer whose pages take `bytes` over all layers; budget + kEvictTokens fill them.
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
    needs.attention_rows = static_cast<int>(kMaxTokens);  // all
    needs.attention_steps = true;
    return needs;
  }

  absl::Status CheckGeometry(const KvGeometry& geometry) const override {
    if (bytes_ == 0 || PagesOf(bytes_, geometry) >= 2) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("kv policy '", text_, "': two pages in each of the model's ", geometry.layers,
                     " layers are the least; they take ",
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
