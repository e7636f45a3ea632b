#include "client/cli/json_fields.h"

#include "absl/strings/str_cat.h"
#include "base/base.h"

namespace tessera::client {
namespace {

using nlohmann::json;

// A line of JSON may hold pictures in base64.
constexpr JsonLimits kLimits = {.max_bytes = 256 << 20};

template <class J>
std::string Dump(const J& value) {
  return value.dump(-1, ' ', false, J::error_handler_t::replace);
}

// Calls `get` with a T to fill, and stores it if the member is there.
template <class T, class Get>
absl::Status GetOptional(const json* member, std::optional<T>* out, Get get) {
  if (member == nullptr) return absl::OkStatus();
  T value{};
  RETURN_IF_ERROR(get(&value));
  *out = value;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<json> ParseObject(absl::string_view text) {
  ASSIGN_OR_RETURN(json value, ParseJson(text, "", kLimits));
  if (!value.is_object()) return absl::InvalidArgumentError("not a JSON object");
  return value;
}

std::string ToLine(const nlohmann::ordered_json& value) { return Dump(value); }
std::string ToLine(const json& value) { return Dump(value); }

const json* Fields::Find(const char* key) {
  used_.insert(key);
  return FindMember(object_, key);
}

absl::Status Fields::Get(const char* key, bool* out) {
  used_.insert(key);
  return GetBool(object_, "", key, out);
}

absl::Status Fields::Get(const char* key, std::string* out) {
  used_.insert(key);
  return GetString(object_, "", key, out);
}

absl::Status Fields::Get(const char* key, std::vector<std::string>* out) {
  used_.insert(key);
  return GetStrings(object_, "", key, out);
}

absl::Status Fields::Get(const char* key, Range<int> range, std::optional<int>* out) {
  return GetOptional(Find(key), out, [&](int* value) {
    return GetInt(object_, "", key, range.min, range.max, value);
  });
}

absl::Status Fields::Get(const char* key, Range<double> range, std::optional<double>* out) {
  return GetOptional(Find(key), out, [&](double* value) {
    return GetDouble(object_, "", key, range.min, range.max, value);
  });
}

absl::Status Fields::Get(const char* key, std::optional<uint64_t>* out) {
  return GetOptional(Find(key), out,
                     [&](uint64_t* value) { return GetUint64(object_, "", key, value); });
}

absl::Status Fields::CheckAllUsed() const {
  for (const auto& [key, value] : object_.items()) {
    if (used_.count(key) == 0) {
      return absl::InvalidArgumentError(absl::StrCat("unknown key \"", key, "\""));
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::client
