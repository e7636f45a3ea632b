#include "server/http/json_members.h"

#include "absl/strings/escaping.h"

namespace tessera {

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
    // The key is the client's: only a plain one can be a path.
    if (LeadingFieldPath(path + ": ").empty()) {
      return absl::InvalidArgumentError("unknown parameter " + absl::CEscape(path));
    }
    return FieldError(path, "unknown parameter", reason::kUnknownField);
  }
  return absl::OkStatus();
}

}  // namespace tessera
