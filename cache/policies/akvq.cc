// `akvq`: AKVQ-VL, bit widths by what attention looks at, after a Walsh-Hadamard rotation.
//
// Source: arXiv 2501.15021. In every layer the last `window` tokens stay at 16 bit, and q, k and v
// are rotated, tokens at 16 bit included. Text-salient layers (0 .. tsa-1; Table I: the first two
// of LLaVA-1.5, v1.6-vicuna and Qwen2-VL, none of v1.6-mistral) store older text at `text` bits and
// older vision tokens at `low`. All other layers, the pivot-salient ones, store everything older at
// `low`. Quantization is per token and head and asymmetric. The range is clipped to 0.8 at 2 bit
// and not at 4 (`clip`: the paper sweeps it).
//
// Our change: a real zero point. The paper rounds it to an integer (`offset=integer`). That moves
// the four levels of 2 bit by up to half a step, and the step is large where keys have large
// outliers: tests/bench/accuracy.md has the cost. The zero point is stored as half either way and
// takes no more bytes.
//
// Our choices where the paper is silent:
// - The window counts prompt and output alike (the paper says "recent").
// - The system prompt is text.
// - Attention in prefill reads 16 bit.
// - Tokens leave the window in groups of 32, so window .. window + 31 tokens are at 16 bit: never
//   fewer than published.
// - 8 bit is not clipped. 1 bit shrinks the range to 0.3 with a real zero point, because a min/max
//   range at 1 bit has an error larger than the signal.
//
// Pivots (pivots.h): the paper keeps 15 tokens with massive activations and names neither the test
// nor the tensor. We choose them in pivot-salient layers only, since text-salient layers have no
// massive activations yet. The candidates are the prompt's tokens that a selector left, the
// window's included, judged by the layer's own input. Pivots stay at 16 bit; generated tokens never
// become pivots.
#include "cache/policies/policies.h"
#include "cache/policy/pivots.h"

namespace tessera {
namespace {

constexpr ParameterSpec kParameters[] = {
    {"window", ParameterSpec::Kind::kInteger, 128, 0, kMaxTokens, "",
     "newest tokens held at 16 bit"},
    {"low", ParameterSpec::Kind::kChoice, 2, 0, 0, kTokenBits, "bits of older tokens"},
    {"text", ParameterSpec::Kind::kChoice, 1, 0, 0, kTokenBits,
     "bits of older text in text-salient layers"},
    {"tsa", ParameterSpec::Kind::kInteger, -1, -1, 1024, "",
     "text-salient layers, from the first (-1: as published for the model's family)"},
    {"group", ParameterSpec::Kind::kChoice, 0, 0, 0, kGroups, "channels that share a scale"},
    {"clip", ParameterSpec::Kind::kReal, 0.8, 0.01, 1, "", "share of the range kept at 2 bit"},
    {"offset", ParameterSpec::Kind::kChoice, 1, 0, 0, kOffsets, "the zero point"},
    {"pivots", ParameterSpec::Kind::kInteger, 15, 0, kMaxPivots, "",
     "tokens with massive activations held at 16 bit"},
    {"pivot_rule", ParameterSpec::Kind::kChoice, 0, 0, 0, kPivotRules, "which tokens these are"},
};

PivotRule RuleOf(const PolicyArguments& arguments) {
  const absl::string_view rule = arguments.Choice("pivot_rule");
  return rule == "topk"           ? PivotRule::kTopK
         : rule == "topk_entries" ? PivotRule::kTopKEntries
                                  : PivotRule::kThreshold;
}

class Akvq final : public Store {
 public:
  explicit Akvq(const PolicyArguments& arguments)
      : text_form_(arguments.Canonical("akvq")),
        window_(static_cast<int>(arguments.Integer("window"))),
        low_(ChosenNumber(arguments, "low")),
        text_(ChosenNumber(arguments, "text")),
        group_(ChosenNumber(arguments, "group")),
        clip_(static_cast<float>(arguments.Real("clip"))),
        integer_offset_(arguments.Choice("offset") == "integer"),
        tsa_(arguments.Integer("tsa")),
        pivots_(static_cast<int>(arguments.Integer("pivots"))),
        pivot_rule_(RuleOf(arguments)) {}

  std::string Text() const override { return text_form_; }
  PolicyNeeds needs() const override { return PivotNeeds(pivot_rule_, pivots_); }
  bool rotated() const override { return true; }
  LayerStorage Layer(int layer) const override {
    const int64_t text = TextSalient(layer) ? text_ : low_;
    return {TokenFormat(text, group_), TokenFormat(low_, group_), RuleFor(text), RuleFor(low_),
            window_};
  }
  int MaxPivots(int layer) const override { return TextSalient(layer) ? 0 : pivots_; }
  std::vector<int32_t> Pivots(int layer, absl::Span<const int32_t> kept,
                              const LayerStats& stats) const override {
    return FindPivots(pivot_rule_, MaxPivots(layer), kept, stats);
  }
  std::shared_ptr<const Store> ForModel(absl::string_view family) const override {
    if (tsa_ >= 0) return nullptr;
    auto store = std::make_shared<Akvq>(*this);
    store->tsa_ = family == "mistral" ? 0 : kTextSalient;
    return store;
  }

 private:
  static constexpr int64_t kTextSalient = 2;  // all published models except Mistral's
  QuantRule RuleFor(int64_t bits) const {
    const float clip = bits >= 4 ? 1.0f : bits == 2 ? clip_ : 0.3f;
    return {.clip_k = clip, .clip_v = clip, .integer_offset = integer_offset_ && bits > 1};
  }
  bool TextSalient(int layer) const { return layer < (tsa_ < 0 ? kTextSalient : tsa_); }

  std::string text_form_;
  int window_;
  int64_t low_;
  int64_t text_;
  int64_t group_;
  float clip_;
  bool integer_offset_;
  int64_t tsa_;
  int pivots_;
  PivotRule pivot_rule_;
};

absl::StatusOr<std::shared_ptr<const Store>> MakeAkvq(const PolicyArguments& arguments) {
  return std::make_shared<Akvq>(arguments);
}

}  // namespace

PolicyEntry AkvqPolicy() {
  return {"akvq", "AKVQ-VL: rotated, recent tokens at 16 bit, text above vision in early layers.",
          kParameters, nullptr, MakeAkvq};
}

}  // namespace tessera
