// `hadamard`: round to nearest after a Walsh-Hadamard rotation of q, k and v.
//
// Source: the KV part of QuaRot (arXiv 2404.00456, section 4.2). The rotation spreads the outlier
// channels of keys over the head. q k^T is unchanged, and per-token rounding loses less. It is
// AKVQ-VL's ablation row "+WHT" (arXiv 2501.15021).
//
// Our changes: no clipping at 2 bit and above, which shows the effect of the rotation alone
// (QuaRot's 0.95 gains little beyond 4 bit). At 1 bit, where a min/max range has an error larger
// than the signal, the range shrinks to 0.3 and the zero point is real. Otherwise the zero point is
// an integer. The rotation spans the head whatever `group` shares a scale.
#include "cache/policies/policies.h"

namespace tessera {
namespace {

constexpr ParameterSpec kParameters[] = {
    {"bits", ParameterSpec::Kind::kChoice, 2, 0, 0, kTokenBits, "bits of a stored value"},
    {"window", ParameterSpec::Kind::kInteger, 0, 0, kMaxTokens, "", "newest tokens held at 16 bit"},
    {"group", ParameterSpec::Kind::kChoice, 0, 0, 0, kGroups, "channels that share a scale"},
    {"offset", ParameterSpec::Kind::kChoice, 0, 0, 0, kOffsets, "the zero point"},
};

absl::StatusOr<std::shared_ptr<const Store>> MakeHadamard(const PolicyArguments& arguments) {
  const int64_t bits = ChosenNumber(arguments, "bits");
  const float clip = bits == 1 ? 0.3f : 1.0f;
  const QuantRule rule = {.clip_k = clip,
                          .clip_v = clip,
                          .integer_offset = bits > 1 && arguments.Choice("offset") == "integer"};
  const Format format = TokenFormat(bits, ChosenNumber(arguments, "group"));
  return std::make_shared<UniformStore>(
      arguments.Canonical("hadamard"), /*rotated=*/true,
      LayerStorage{format, format, rule, rule, static_cast<int>(arguments.Integer("window"))});
}

}  // namespace

PolicyEntry HadamardPolicy() {
  return {"hadamard", "Rounds every token after a Walsh-Hadamard rotation of each head.",
          kParameters, nullptr, MakeHadamard};
}

}  // namespace tessera
