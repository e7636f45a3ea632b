#include "cache/policy/entry.h"

#include "absl/strings/numbers.h"
#include "base/base.h"

namespace tessera {

Format FormatOf(const Codec& k, const Codec& v) {
  const auto same = [](const Codec& a, const Codec& b) {
    return a.bits == b.bits && a.axis == b.axis && a.group == b.group;
  };
  for (int f = 0; f < kNumFormats; ++f) {
    if (same(kFormatTable[f].k, k) && same(kFormatTable[f].v, v)) return static_cast<Format>(f);
  }
  TESSERA_CHECK(false);
}

Format TokenFormat(int64_t bits, int64_t group) {
  const Codec codec = {static_cast<int>(bits), Axis::kToken, static_cast<int>(group)};
  return FormatOf(codec, codec);
}

int64_t ChosenNumber(const PolicyArguments& arguments, absl::string_view name) {
  const absl::string_view chosen = arguments.Choice(name);
  int64_t number = 0;
  TESSERA_CHECK(chosen == "head" || absl::SimpleAtoi(chosen, &number));
  return number;
}

}  // namespace tessera
