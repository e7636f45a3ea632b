// `window`: keeps the first `sinks` tokens of the prompt and its last `recent` tokens.
//
// Source: the keep rule of StreamingLLM (arXiv 2309.17453): attention needs the first tokens as
// sinks, and the recent ones. Every layer keeps the same tokens.
//
// Our changes, as in one-shot comparisons of eviction methods: the rule is applied once, to the
// prompt, at the commit, and generated tokens stay. Keys keep the positions they were computed with
// (published: positions inside the cache, renewed at every step).
#include <algorithm>

#include "cache/policies/policies.h"

namespace tessera {
namespace {

constexpr ParameterSpec kParameters[] = {
    {"sinks", ParameterSpec::Kind::kInteger, 4, 0, kMaxTokens, "", "first tokens that stay"},
    {"recent", ParameterSpec::Kind::kInteger, 512, 1, kMaxTokens, "", "last tokens that stay"},
};

class Window final : public Selector {
 public:
  explicit Window(const PolicyArguments& arguments)
      : text_(arguments.Canonical("window")),
        sinks_(static_cast<int>(arguments.Integer("sinks"))),
        recent_(static_cast<int>(arguments.Integer("recent"))) {}

  std::string Text() const override { return text_; }
  Selection Select(const PromptView& prompt, absl::Span<const LayerStats>,
                   const KvGeometry& geometry) const override {
    std::vector<int32_t> kept;
    for (int i = 0; i < prompt.tokens(); ++i) {
      if (i < sinks_ || i >= prompt.tokens() - recent_) kept.push_back(i);
    }
    return Selection(geometry.layers, kept);
  }

 private:
  std::string text_;
  int sinks_;
  int recent_;
};

absl::StatusOr<std::shared_ptr<const Selector>> MakeWindow(const PolicyArguments& arguments) {
  return std::make_shared<Window>(arguments);
}

}  // namespace

PolicyEntry WindowPolicy() {
  return {"window", "Keeps the prompt's first and last tokens (StreamingLLM's rule).", kParameters,
          MakeWindow, nullptr};
}

}  // namespace tessera
