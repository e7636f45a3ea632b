// Reads one JSON object member by member, and notices members that were never read.
//
// Errors are INVALID_ARGUMENT and name the member. No function throws. Threads: one.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/json.h"
#include "client/cli/options.h"

namespace tessera::client {

// Parses text that must be exactly one JSON object.
absl::StatusOr<nlohmann::json> ParseObject(absl::string_view text);

// Returns the JSON on one line without newline. Replaces bytes that are not UTF-8 by U+FFFD.
std::string ToLine(const nlohmann::ordered_json& json);
std::string ToLine(const nlohmann::json& json);

// Absent members and null leave the target as it is. The object is not owned.
class Fields {
 public:
  explicit Fields(const nlohmann::json& object) : object_(object) {}

  // Returns the member, or null if it is absent or JSON null.
  const nlohmann::json* Find(const char* key);
  absl::Status Get(const char* key, bool* out);
  absl::Status Get(const char* key, std::string* out);
  absl::Status Get(const char* key, std::vector<std::string>* out);
  absl::Status Get(const char* key, Range<int> range, std::optional<int>* out);
  absl::Status Get(const char* key, Range<double> range, std::optional<double>* out);
  absl::Status Get(const char* key, std::optional<uint64_t>* out);
  // Fails for a member that was never read, so that a mistyped setting is not ignored.
  absl::Status CheckAllUsed() const;

 private:
  const nlohmann::json& object_;
  std::set<std::string> used_;
};

}  // namespace tessera::client
