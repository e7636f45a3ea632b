// `kivi`: keys per channel, values per token, the newest tokens at 16 bit.
//
// Source: KIVI (arXiv 2402.02750). Keys have outlier channels that stay the same over tokens,
// values do not. K has one real range per channel over a group of 32 tokens. V has one per token
// over `group` channels (both 32 as published). Ranges are min/max without clipping; attention in
// prefill reads 16 bit.
//
// Our change: one window for K and V (published: K leaves it `residual` tokens at once, V one by
// one). Tokens leave it in groups of 32, so `residual` to `residual` + 31 tokens are at 16 bit:
// never fewer than published. K's group stays 32 tokens, one page, when V's is larger.
#include "cache/policies/policies.h"

namespace tessera {
namespace {

constexpr ParameterSpec kParameters[] = {
    {"bits", ParameterSpec::Kind::kChoice, 1, 0, 0, "4|2|1", "bits of a stored value"},
    {"residual", ParameterSpec::Kind::kInteger, 128, 0, kMaxTokens, "",
     "newest tokens held at 16 bit"},
    {"group", ParameterSpec::Kind::kChoice, 2, 0, 0, kGroups,
     "channels of a value that share a scale"},
};

absl::StatusOr<std::shared_ptr<const Store>> MakeKivi(const PolicyArguments& arguments) {
  const int bits = static_cast<int>(ChosenNumber(arguments, "bits"));
  const int group = static_cast<int>(ChosenNumber(arguments, "group"));
  const Format format = FormatOf({bits, Axis::kChannel}, {bits, Axis::kToken, group});
  const QuantRule rule = {.clip_k = 1, .clip_v = 1, .integer_offset = false};
  return std::make_shared<UniformStore>(
      arguments.Canonical("kivi"), /*rotated=*/false,
      LayerStorage{format, format, rule, rule, static_cast<int>(arguments.Integer("residual"))});
}

}  // namespace

PolicyEntry KiviPolicy() {
  return {"kivi", "Keys per channel over 32 tokens, values per token, the newest at 16 bit.",
          kParameters, nullptr, MakeKivi};
}

}  // namespace tessera
