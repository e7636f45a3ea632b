#include "server/http/json_members.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"

namespace tessera {
namespace {

bool IsPlain(absl::string_view key) {
  return !key.empty() && std::all_of(key.begin(), key.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '_' || c == '-';
  });
}

}  // namespace

absl::Status JsonMembers::Only(const char* key, std::initializer_list<nlohmann::json> allowed,
                               absl::string_view why) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  for (const nlohmann::json& one : allowed) {
    if (*value == one) return absl::OkStatus();
  }
  return FieldError(PathOf(key), why);
}

absl::Status JsonMembers::Finish() const {
  for (const auto& [key, value] : object_.items()) {
    if (known_.contains(key) || value.is_null()) continue;
    const std::string path = PathOf(key.c_str());
    // The client chose the key: only a plain one may stand in the error's details.
    if (!IsPlain(key)) {
      return absl::InvalidArgumentError("unknown parameter " + absl::CEscape(path));
    }
    return FieldError(path, "unknown parameter", reason::kUnknownField);
  }
  return absl::OkStatus();
}

}  // namespace tessera
