// Checked reading of one JSON object: wrong types, values out of range and unknown keys are errors
// that name the key. No exceptions leave these functions.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/cli/options.h"
#include "nlohmann/json.hpp"

namespace tessera::client {

// INVALID_ARGUMENT unless the text is exactly one JSON object.
absl::StatusOr<nlohmann::json> ParseObject(absl::string_view text);

// One line, without newline; bytes that are not UTF-8 become U+FFFD instead of an exception.
std::string ToLine(const nlohmann::ordered_json& json);
std::string ToLine(const nlohmann::json& json);

// Reads members by key and remembers which keys were asked for. Absent and null members leave the
// target as it is. The object is not owned.
class Fields {
 public:
  explicit Fields(const nlohmann::json& object) : object_(object) {}

  // nullptr when absent or null.
  const nlohmann::json* Find(const char* key);
  absl::Status Get(const char* key, bool* out);
  absl::Status Get(const char* key, std::string* out);
  absl::Status Get(const char* key, Range<int> range, std::optional<int>* out);
  absl::Status Get(const char* key, Range<double> range, std::optional<double>* out);
  absl::Status Get(const char* key, std::optional<uint64_t>* out);
  absl::Status Get(const char* key, std::vector<std::string>* out);
  // Names a key that nobody asked for: a mistyped setting must not be ignored.
  absl::Status CheckAllUsed() const;

 private:
  const nlohmann::json& object_;
  std::set<std::string> used_;
};

}  // namespace tessera::client
