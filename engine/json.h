// Reads foreign JSON with limits first: byte size and nesting depth are checked before the library
// (nlohmann-json, whose parser is not recursive) sees the text. No exceptions leave this file's
// functions.
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
};

// `what` names the text in errors (a file name). Duplicate object keys are refused.
absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, absl::string_view what,
                                         const JsonLimits& limits = {});
absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes);
absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path, const JsonLimits& limits = {});

// Typed member access: `*out` keeps its value when the key is absent or null; a wrong type or a
// value outside [min, max] is INVALID_ARGUMENT naming `what` and the key.
absl::Status GetInt(const nlohmann::json& object, absl::string_view what, const char* key,
                    int64_t min, int64_t max, int* out);
absl::Status GetFloat(const nlohmann::json& object, absl::string_view what, const char* key,
                      double min, double max, float* out);
absl::Status GetBool(const nlohmann::json& object, absl::string_view what, const char* key,
                     bool* out);
absl::Status GetString(const nlohmann::json& object, absl::string_view what, const char* key,
                       std::string* out);

}  // namespace tessera
