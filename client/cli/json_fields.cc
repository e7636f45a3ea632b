#include "client/cli/json_fields.h"

#include "absl/strings/str_cat.h"
#include "base/base.h"

namespace tessera::client {
namespace {

using absl::InvalidArgumentError;
using nlohmann::json;

absl::Status WrongType(const char* key, absl::string_view wanted) {
  return InvalidArgumentError(absl::StrCat("\"", key, "\" must be ", wanted));
}

template <class T, class V>
absl::Status CheckRange(const char* key, const Range<T>& range, V value) {
  static_assert(std::is_signed_v<V>);
  if (value >= range.min && value <= range.max) return absl::OkStatus();
  return InvalidArgumentError(
      absl::StrCat("\"", key, "\": ", value, " is not between ", range.min, " and ", range.max));
}

template <class J>
std::string Dump(const J& value) {
  return value.dump(-1, ' ', false, J::error_handler_t::replace);
}

}  // namespace

absl::StatusOr<json> ParseObject(absl::string_view text) {
  json value = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) return InvalidArgumentError("not valid JSON");
  if (!value.is_object()) return InvalidArgumentError("not a JSON object");
  return value;
}

std::string ToLine(const nlohmann::ordered_json& value) { return Dump(value); }
std::string ToLine(const json& value) { return Dump(value); }

const json* Fields::Find(const char* key) {
  used_.insert(key);
  const auto at = object_.find(key);
  return at == object_.end() || at->is_null() ? nullptr : &*at;
}

absl::Status Fields::Get(const char* key, bool* out) {
  const json* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_boolean()) return WrongType(key, "true or false");
  *out = value->get<bool>();
  return absl::OkStatus();
}

absl::Status Fields::Get(const char* key, std::string* out) {
  const json* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_string()) return WrongType(key, "a string");
  *out = value->get<std::string>();
  return absl::OkStatus();
}

absl::Status Fields::Get(const char* key, Range<int> range, std::optional<int>* out) {
  const json* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_number_integer()) return WrongType(key, "a whole number");
  // Unsigned values above int64 would wrap to negative ones.
  if (value->is_number_unsigned()) {
    const uint64_t number = value->get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return WrongType(key, "a smaller number");
    }
  }
  const int64_t number = value->get<int64_t>();
  RETURN_IF_ERROR(CheckRange(key, range, number));
  *out = static_cast<int>(number);
  return absl::OkStatus();
}

absl::Status Fields::Get(const char* key, Range<double> range, std::optional<double>* out) {
  const json* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_number()) return WrongType(key, "a number");
  const double number = value->get<double>();
  RETURN_IF_ERROR(CheckRange(key, range, number));
  *out = number;
  return absl::OkStatus();
}

absl::Status Fields::Get(const char* key, std::optional<uint64_t>* out) {
  const json* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_number_unsigned()) return WrongType(key, "a whole number from 0 to 2^64-1");
  *out = value->get<uint64_t>();
  return absl::OkStatus();
}

absl::Status Fields::Get(const char* key, std::vector<std::string>* out) {
  const json* value = Find(key);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_array()) return WrongType(key, "a list of strings");
  std::vector<std::string> texts;
  for (const json& item : *value) {
    if (!item.is_string()) return WrongType(key, "a list of strings");
    texts.push_back(item.get<std::string>());
  }
  *out = std::move(texts);
  return absl::OkStatus();
}

absl::Status Fields::CheckAllUsed() const {
  for (const auto& [key, value] : object_.items()) {
    if (used_.count(key) == 0) {
      return InvalidArgumentError(absl::StrCat("unknown key \"", key, "\""));
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::client
