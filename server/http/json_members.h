// Typed access to the members of a JSON request. An unknown member is an error.
//
// An absent member and null are the same. Errors: INVALID_ARGUMENT with the member's path. The
// object must outlive this. Threads: one.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <set>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/json.h"
#include "server/api/error_details.h"

namespace tessera {

class JsonMembers {
 public:
  JsonMembers(const nlohmann::json& object, std::string path)
      : object_(object), path_(std::move(path)) {}

  std::string PathOf(const char* key) const {
    return path_.empty() ? key : absl::StrCat(path_, ".", key);
  }

  const nlohmann::json* Find(const char* key) {
    known_.insert(key);
    return FindMember(object_, key);
  }

  // Calls `set` with the value if there is one.
  template <class Set>
  absl::Status Number(const char* key, Set set) {
    const nlohmann::json* value = Find(key);
    if (value == nullptr) return absl::OkStatus();
    if (!value->is_number()) return FieldError(PathOf(key), "want a number");
    set(value->get<double>());
    return absl::OkStatus();
  }
  template <class Set>
  absl::Status Integer(const char* key, int64_t min, int64_t max, Set set) {
    const nlohmann::json* value = Find(key);
    if (value == nullptr) return absl::OkStatus();
    const bool fits = value->is_number_unsigned()
                          ? value->get<uint64_t>() <= static_cast<uint64_t>(max)
                          : value->is_number_integer();
    if (!fits || value->get<int64_t>() < min || value->get<int64_t>() > max) {
      return FieldError(PathOf(key), absl::StrCat("want an integer within [", min, ", ", max, "]"));
    }
    set(value->get<int64_t>());
    return absl::OkStatus();
  }
  template <class Set>
  absl::Status Bool(const char* key, Set set) {
    const nlohmann::json* value = Find(key);
    if (value == nullptr) return absl::OkStatus();
    if (!value->is_boolean()) return FieldError(PathOf(key), "want true or false");
    set(value->get<bool>());
    return absl::OkStatus();
  }
  template <class Set>
  absl::Status String(const char* key, Set set) {
    const nlohmann::json* value = Find(key);
    if (value == nullptr) return absl::OkStatus();
    if (!value->is_string()) return FieldError(PathOf(key), "want a string");
    set(value->get<std::string>());
    return absl::OkStatus();
  }
  // Ignores a member that has no effect here: clients use it for their own bookkeeping.
  void Accept(const char* key) { known_.insert(key); }
  // Checks an option of which this server supports the `allowed` values only.
  absl::Status Only(const char* key, std::initializer_list<nlohmann::json> allowed,
                    absl::string_view why);

  // Returns INVALID_ARGUMENT for the first member that is set but unknown.
  absl::Status Finish() const;

 private:
  const nlohmann::json& object_;
  const std::string path_;
  std::set<std::string> known_;
};

}  // namespace tessera
