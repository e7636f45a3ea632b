#include "cache/policies/registry.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "cache/policies/policies.h"

namespace tessera {
namespace {

// The table: one line per method.
std::vector<PolicyEntry> Entries() {
  return {
      NonePolicy(),
      // Selectors.
      WindowPolicy(),
      RandomPolicy(),
      FlashCachePolicy(),
      SnapKvPolicy(),
      H2oPolicy(),
      // Stores.
      RtnPolicy(),
      HadamardPolicy(),
      KiviPolicy(),
      AkvqPolicy(),
      CalibQuantPolicy(),
  };
}
// clang-format on

PolicyRole RoleOf(const PolicyEntry& entry) {
  return entry.alone                      ? PolicyRole::kAlone
         : entry.make_selector != nullptr ? PolicyRole::kSelector
         : entry.make_store != nullptr    ? PolicyRole::kStore
                                          : PolicyRole::kAlone;
}

struct Stage {
  const PolicyEntry* entry;
  PolicyArguments arguments;
};

// Returns OK if the stages can be combined, else the reason.
absl::Status CheckComposition(const std::vector<Stage>& stages) {
  if (stages.size() == 1) return absl::OkStatus();
  const PolicyEntry &first = *stages[0].entry, &second = *stages[1].entry;
  const auto error = [&](const auto&... what) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv policy '", first.name, "+", second.name, "': ", what...));
  };
  for (const PolicyEntry* entry : {&first, &second}) {
    if (RoleOf(*entry) != PolicyRole::kAlone) continue;
    return error("'", entry->name,
                 "' decides alone which tokens stay and how they are stored; it cannot be "
                 "combined by '+'");
  }
  if (RoleOf(first) == RoleOf(second)) {
    return error(RoleOf(first) == PolicyRole::kSelector ? "both decide which tokens stay"
                                                        : "both decide how tokens are stored",
                 "; only one can");
  }
  if (RoleOf(first) == PolicyRole::kStore) {
    return error("tokens are chosen before they are stored: write '", second.name, "+", first.name,
                 "'");
  }
  if (stages.size() > 2) {
    return error("'", stages[2].entry->name,
                 "' follows, but a policy has at most two parts: which tokens stay, and how they "
                 "are stored");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Policy>> ParsePolicy(absl::string_view text) {
  const std::vector<PolicyEntry> entries = Entries();
  ASSIGN_OR_RETURN(const std::vector<PolicyStage> parsed, ParsePolicyText(text));
  std::vector<Stage> stages;
  for (const PolicyStage& stage : parsed) {
    const auto entry = std::find_if(entries.begin(), entries.end(), [&stage](const PolicyEntry& e) {
      return stage.name == e.name;
    });
    if (entry == entries.end()) {
      std::vector<absl::string_view> known;
      for (const PolicyEntry& e : entries) known.emplace_back(e.name);
      return absl::InvalidArgumentError(UnknownName("kv policy", stage.name, known));
    }
    ASSIGN_OR_RETURN(PolicyArguments arguments, PolicyArguments::Bind(stage, entry->parameters));
    stages.push_back({&*entry, std::move(arguments)});
  }
  RETURN_IF_ERROR(CheckComposition(stages));
  std::shared_ptr<const Selector> selector;
  std::shared_ptr<const Store> store;
  std::vector<std::string> names;
  for (const Stage& stage : stages) {
    names.emplace_back(stage.entry->name);
    if (stage.entry->make_selector != nullptr) {
      ASSIGN_OR_RETURN(selector, stage.entry->make_selector(stage.arguments));
    } else if (stage.entry->make_store != nullptr) {
      ASSIGN_OR_RETURN(store, stage.entry->make_store(stage.arguments));
    }
  }
  return std::make_shared<const Policy>(std::move(selector), std::move(store), std::move(names));
}

std::vector<PolicyInfo> PolicyTable() {
  std::vector<PolicyInfo> table;
  for (const PolicyEntry& entry : Entries()) {
    table.push_back(
        {entry.name, DescribeParameters(entry.parameters), entry.summary, RoleOf(entry)});
  }
  return table;
}

}  // namespace tessera
