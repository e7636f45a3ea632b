// `akvq`: AKVQ-VL, bits by what attention looks at, after a Walsh-Hadamard rotation.
//
// arXiv 2501.15021. Every layer: the last `window` tokens at 16 bit; q, k, v rotated, also what is
// at 16 bit. Text-salient layers (0 .. tsa-1; Table I: the first two of LLaVA-1.5, v1.6-vicuna and
// Qwen2-VL, none of v1.6-mistral): older text at `text` bits, vision at `low`. The other,
// pivot-salient layers: everything older at `low`. Per token and head, asymmetric, range clipped
// to 0.8 at 2 bit and not at 4 (`clip`: the paper sweeps it).
//
// Ours: a real offset. The paper rounds the zero point to an integer (`offset=integer`), which
// moves the four levels of 2 bit by up to half a step, and where keys have large outliers the step
// is large: tests/bench/accuracy.md has what that costs. Stored as half either way, it takes no
// more bytes.
//
// Where the paper is silent: the window counts prompt and output alike (it says "recent"), the
// system prompt is text, prefill attention reads 16 bit, tokens leave in groups of 32 (16-bit
// tokens: window .. window + 31, never fewer than published), 8 bit is not clipped, 1 bit shrinks
// the range to 0.3 with a real offset (a min/max range at 1 bit errs by more than the signal).
//
// Pivots (pivots.h), published as 15 tokens found by massive activations with neither test nor
// tensor named: in pivot-salient layers only (in text-salient ones there are no massive activations
// yet), among the prompt's tokens that a selector left, the window's included, by the layer's own
// input. They stay at 16 bit; generated tokens never become pivots.
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
  static constexpr int64_t kTextSalient = 2;  // of all published models but Mistral's
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
