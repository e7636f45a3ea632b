#include "cache/policy.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "cache/policies/policies.h"
#include "kernels/base.h"

namespace tessera {
namespace {

// The table: one line a method.
std::vector<PolicyEntry> Entries() {
  return {
      NonePolicy(),
  };
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Policy>> ParsePolicy(absl::string_view text) {
  const std::vector<PolicyEntry> entries = Entries();
  ASSIGN_OR_RETURN(const std::vector<PolicyStage> stages, ParsePolicyText(text));
  std::vector<std::pair<const PolicyEntry*, PolicyArguments>> bound;
  for (const PolicyStage& stage : stages) {
    const auto entry = std::find_if(entries.begin(), entries.end(), [&stage](const PolicyEntry& e) {
      return stage.name == e.name;
    });
    if (entry == entries.end()) {
      std::vector<absl::string_view> known;
      for (const PolicyEntry& e : entries) known.push_back(e.name);
      return absl::InvalidArgumentError(UnknownName("kv policy", stage.name, known));
    }
    ASSIGN_OR_RETURN(PolicyArguments arguments, PolicyArguments::Bind(stage, entry->parameters));
    bound.emplace_back(&*entry, std::move(arguments));
  }
  if (bound.size() > 1) {
    // Only "who stays" + "how it is stored" makes sense, and no entry is only one of the two.
    return absl::InvalidArgumentError(
        absl::StrCat("kv policy '", bound.front().first->name, "+", bound[1].first->name, "': '",
                     bound.front().first->name,
                     "' decides alone which tokens stay and how they are stored; it cannot be "
                     "combined by '+'"));
  }
  return bound.front().first->make(bound.front().second);
}

std::vector<PolicyInfo> PolicyTable() {
  std::vector<PolicyInfo> table;
  for (const PolicyEntry& entry : Entries()) {
    table.push_back({entry.name, DescribeParameters(entry.parameters), entry.summary});
  }
  return table;
}

}  // namespace tessera
