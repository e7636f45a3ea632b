// Fuzzes the parser of policies. Any text is refused with a printable message, or it parses to a
// policy whose canonical text parses to itself.
#include <cstddef>
#include <cstdint>

#include "absl/strings/ascii.h"
#include "base/base.h"
#include "cache/policies/registry.h"
#include "cache/policy/policy.h"
#include "cache/policy/policy_text.h"

namespace {

constexpr tessera::ParameterSpec kSpecs[] = {
    {"a", tessera::ParameterSpec::Kind::kInteger, 1, -5, 1 << 20, "", ""},
    {"b", tessera::ParameterSpec::Kind::kReal, 0.5, -1e300, 1e300, "", ""},
    {"c", tessera::ParameterSpec::Kind::kChoice, 0, 0, 0, "x|y", ""},
};

void CheckPrintable(const absl::Status& status) {
  for (char c : status.message()) TESSERA_CHECK(absl::ascii_isprint(c));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto policy = tessera::ParsePolicy(text); policy.ok()) {
    const auto again = tessera::ParsePolicy((*policy)->Text());
    TESSERA_CHECK(again.ok() && (*again)->Text() == (*policy)->Text());
  } else {
    CheckPrintable(policy.status());
  }
  // Checks the grammar and the types of parameters, which the table of policies hardly uses today.
  const auto stages = tessera::ParsePolicyText(text);
  if (!stages.ok()) return 0;
  for (const tessera::PolicyStage& stage : *stages) {
    const auto bound = tessera::PolicyArguments::Bind(stage, kSpecs);
    if (!bound.ok()) {
      CheckPrintable(bound.status());
      continue;
    }
    const std::string canonical = bound->Canonical("p");
    const auto again = tessera::ParsePolicyText(canonical);
    TESSERA_CHECK(again.ok());
    const auto rebound = tessera::PolicyArguments::Bind(again->front(), kSpecs);
    TESSERA_CHECK(rebound.ok() && rebound->Canonical("p") == canonical);
  }
  return 0;
}
