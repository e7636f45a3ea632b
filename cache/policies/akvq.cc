// `akvq`: AKVQ-VL, bits by what attention looks at, after a Walsh-Hadamard rotation.
//
// arXiv 2501.15021. Every layer: the last `window` tokens at 16 bit; q, k, v rotated, also what is
// at 16 bit. Text-salient layers (0 .. tsa-1; Table I: the first two of LLaVA-1.5 and v1.6-vicuna,
// none of v1.6-mistral, so `tsa=0` there): older text at `text` bits, vision at `low`. The other,
// pivot-salient layers: everything older at `low`. Per token and head, asymmetric, integer zero
// point, range clipped to 0.8 at 2 bit and not at 4.
//
// Where the paper is silent: the window counts prompt and output alike (it says "recent"), the
// system prompt is text, prefill attention reads 16 bit, tokens leave in groups of 32 (16-bit
// tokens: window .. window + 31, never fewer than published), 8 bit is not clipped, 1 bit shrinks
// the range to 0.3 with a real offset (a min/max range at 1 bit errs by more than the signal).
//
// Pivots, the tokens with massive activations that the paper keeps at 16 bit in pivot-salient
// layers, come with the statistics of the residual stream. Until those are collected `pivots` must
// be 0, so that nobody takes these answers for the full method's.
#include "absl/strings/str_cat.h"
#include "cache/policies/policies.h"

namespace tessera {
namespace {

constexpr ParameterSpec kParameters[] = {
    {"window", ParameterSpec::Kind::kInteger, 128, 0, kMaxTokens, "",
     "newest tokens held at 16 bit"},
    {"low", ParameterSpec::Kind::kChoice, 2, 0, 0, kTokenBits, "bits of older tokens"},
    {"text", ParameterSpec::Kind::kChoice, 1, 0, 0, kTokenBits,
     "bits of older text in text-salient layers"},
    {"tsa", ParameterSpec::Kind::kInteger, 2, 0, 1024, "", "text-salient layers, from the first"},
    {"group", ParameterSpec::Kind::kChoice, 0, 0, 0, kGroups, "channels that share a scale"},
    {"pivots", ParameterSpec::Kind::kInteger, 0, 0, 4096, "",
     "tokens with massive activations held at 16 bit"},
};

QuantRule RuleFor(int64_t bits) {
  const float clip = bits >= 4 ? 1.0f : bits == 2 ? 0.8f : 0.3f;
  return {.clip_k = clip, .clip_v = clip, .integer_offset = bits > 1};
}

class Akvq final : public Store {
 public:
  explicit Akvq(const PolicyArguments& arguments)
      : text_form_(arguments.Canonical("akvq")),
        window_(static_cast<int>(arguments.Integer("window"))),
        low_(ChosenNumber(arguments, "low")),
        text_(ChosenNumber(arguments, "text")),
        group_(ChosenNumber(arguments, "group")),
        tsa_(arguments.Integer("tsa")) {}

  std::string Text() const override { return text_form_; }
  bool rotated() const override { return true; }
  LayerStorage Layer(int layer) const override {
    const int64_t text = layer < tsa_ ? text_ : low_;
    return {TokenFormat(text, group_), TokenFormat(low_, group_), RuleFor(text), RuleFor(low_),
            window_};
  }

 private:
  std::string text_form_;
  int window_;
  int64_t low_;
  int64_t text_;
  int64_t group_;
  int64_t tsa_;
};

absl::StatusOr<std::shared_ptr<const Store>> MakeAkvq(const PolicyArguments& arguments) {
  if (const int64_t pivots = arguments.Integer("pivots"); pivots != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "kv policy 'akvq': pivots=", pivots,
        " needs statistics of the residual stream, which are not collected yet; only 0 works"));
  }
  return std::make_shared<Akvq>(arguments);
}

}  // namespace

PolicyEntry AkvqPolicy() {
  return {"akvq", "AKVQ-VL: rotated, recent tokens at 16 bit, text above vision in early layers.",
          kParameters, nullptr, MakeAkvq};
}

}  // namespace tessera
