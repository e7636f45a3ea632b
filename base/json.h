// Reads foreign JSON with limits first, and gives typed, range-checked access to its members.
//
// The byte size is checked before parsing; nesting depth, value count and duplicate keys are
// checked as the values arrive, so that hostile text is refused before memory is spent on it
// (nlohmann-json's parser is not recursive). Numbers must be finite JSON numbers; strings UTF-8.
// Threads: functions only, safe. Errors: INVALID_ARGUMENT (or NOT_FOUND, for files) naming the
// text; no exceptions leave these functions.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace tessera {

struct JsonLimits {
  int64_t max_bytes = 32 << 20;
  int max_depth = 32;
  int64_t max_values = 4'000'000;  // a value costs far more memory than its bytes
};

// `what` names the text in errors (a file name). Duplicate object keys are refused.
absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, absl::string_view what,
                                         const JsonLimits& limits = {});
// The content of a regular file; NOT_FOUND if there is none, RESOURCE_EXHAUSTED over `max_bytes`.
absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes);
absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path, const JsonLimits& limits = {});

// Typed member access: `*out` keeps its value when the key is absent or null; a wrong type or a
// value outside [min, max] is INVALID_ARGUMENT naming `what` and the key. An integer written as 4.0
// is of the wrong type.
absl::Status GetInt(const nlohmann::json& object, absl::string_view what, const char* key,
                    int64_t min, int64_t max, int* out);
absl::Status GetFloat(const nlohmann::json& object, absl::string_view what, const char* key,
                      double min, double max, float* out);
absl::Status GetBool(const nlohmann::json& object, absl::string_view what, const char* key,
                     bool* out);
absl::Status GetString(const nlohmann::json& object, absl::string_view what, const char* key,
                       std::string* out);
// The member, or null when it is absent, JSON null or `object` is not an object.
const nlohmann::json* FindMember(const nlohmann::json& object, const char* key);

}  // namespace tessera
