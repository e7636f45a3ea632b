// `rtn`: round to nearest, the plain baseline that the papers compare with.
//
// Every token older than `window` is stored per token and head (one group of head_dim values, or
// groups of 64 or 32). The range is an asymmetric min/max without clipping or transform, as in the
// RTN rows of AKVQ-VL (arXiv 2501.15021, Table II) and in QuaRot's KV quantizer without its
// rotation (arXiv 2404.00456).
//
// Our choices: attention in prefill reads 16 bit. Tokens leave the window (0, as published) in
// groups of 32. The zero point is an integer, as in both sources, except at 1 bit, where that loses
// one of the two levels.
#include "cache/policies/policies.h"

namespace tessera {
namespace {

constexpr ParameterSpec kParameters[] = {
    {"bits", ParameterSpec::Kind::kChoice, 1, 0, 0, kTokenBits, "bits of a stored value"},
    {"window", ParameterSpec::Kind::kInteger, 0, 0, kMaxTokens, "", "newest tokens held at 16 bit"},
    {"group", ParameterSpec::Kind::kChoice, 0, 0, 0, kGroups, "channels that share a scale"},
    {"offset", ParameterSpec::Kind::kChoice, 0, 0, 0, kOffsets, "the zero point"},
};

absl::StatusOr<std::shared_ptr<const Store>> MakeRtn(const PolicyArguments& arguments) {
  const int64_t bits = ChosenNumber(arguments, "bits");
  const QuantRule rule = {.clip_k = 1,
                          .clip_v = 1,
                          .integer_offset = bits > 1 && arguments.Choice("offset") == "integer"};
  const Format format = TokenFormat(bits, ChosenNumber(arguments, "group"));
  return std::make_shared<UniformStore>(
      arguments.Canonical("rtn"), /*rotated=*/false,
      LayerStorage{format, format, rule, rule, static_cast<int>(arguments.Integer("window"))});
}

}  // namespace

PolicyEntry RtnPolicy() {
  return {"rtn", "Rounds every token to the nearest of 2^bits levels between its extremes.",
          kParameters, nullptr, MakeRtn};
}

}  // namespace tessera
