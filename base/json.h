// Parses JSON from untrusted sources, and reads its members with checks of type and range.
//
// ParseJson checks the size before parsing, and depth, number of values and duplicate keys while
// values arrive. So hostile text is refused before memory is spent on it. nlohmann-json's parser is
// not recursive. Numbers must be finite, strings must be UTF-8.
//
// Threads: functions only, safe. Errors: INVALID_ARGUMENT, or ReadFile's code for files. The
// message starts with `what`, the text's name, unless that is empty. No function throws.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace tessera {

struct JsonLimits {
  int64_t max_bytes = 32 << 20;
  int max_depth = 32;
  int64_t max_values = 4'000'000;  // A value costs far more memory than its bytes.
};

// Parses one document. Duplicate keys of an object are an error.
absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, absl::string_view what,
                                         const JsonLimits& limits = {});
// Reads and parses a file; errors name its path.
absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path, const JsonLimits& limits = {});

// Read the member `key` of `object` into `*out`, which keeps its value when the member is absent or
// null. A wrong type or a value outside [min, max] is an error that names `what` and the key.
// GetInt and GetUint64 refuse an integer that is written as 4.0.
absl::Status GetInt(const nlohmann::json& object, absl::string_view what, const char* key,
                    int64_t min, int64_t max, int* out);
absl::Status GetUint64(const nlohmann::json& object, absl::string_view what, const char* key,
                       uint64_t* out);
absl::Status GetDouble(const nlohmann::json& object, absl::string_view what, const char* key,
                       double min, double max, double* out);
absl::Status GetFloat(const nlohmann::json& object, absl::string_view what, const char* key,
                      double min, double max, float* out);
absl::Status GetBool(const nlohmann::json& object, absl::string_view what, const char* key,
                     bool* out);
absl::Status GetString(const nlohmann::json& object, absl::string_view what, const char* key,
                       std::string* out);
absl::Status GetStrings(const nlohmann::json& object, absl::string_view what, const char* key,
                        std::vector<std::string>* out);

// Returns the member, or null if it is absent or JSON null, or if `object` is not an object.
const nlohmann::json* FindMember(const nlohmann::json& object, const char* key);

}  // namespace tessera
