// The table of KV policies, and the parser that turns a text form into a policy.
//
// Threads: functions only, safe.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cache/policy/policy.h"

namespace tessera {

// Parses a text form such as "flashcache(keep=0.2)+akvq(window=64)". INVALID_ARGUMENT names the
// mistake.
absl::StatusOr<std::shared_ptr<const Policy>> ParsePolicy(absl::string_view text);

enum class PolicyRole { kAlone, kSelector, kStore };  // "selector+store" combines two
struct PolicyInfo {
  std::string name;
  std::string parameters;  // "" or "keep=0.2, ..." with defaults, for --help and docs
  std::string summary;
  PolicyRole role = PolicyRole::kAlone;
};
std::vector<PolicyInfo> PolicyTable();

}  // namespace tessera
