// Converts one JSON line of `tessera generate` to a request, and its result to a line.
// Threads: functions only, safe.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/rpc/generation_options.h"
#include "client/rpc/retrying_calls.h"
#include "nlohmann/json.hpp"

namespace tessera::client {

struct LineDefaults {
  GenerationOptions generation;
  std::string system;           // system prompt of lines with a "prompt"
  std::string image_directory;  // relative image paths start here; "" is the working directory
};

struct LineRequest {
  nlohmann::json id;  // the line's "id", or its number, counted from 1
  v1::GenerateRequest request;
};

// Parses a line. Its keys are:
//   - "id": a string or a number;
//   - "prompt": a string, with "images", "system" and "raw"; or
//   - "messages": [{"role", "content"}], where "content" is a string or a list of
//     {"type": "text", "text"} and {"type": "image", "path"};
//   - every key of GenerationOptions.
// Unknown keys are errors. Sets `out->id` even if the rest of the line is wrong.
absl::Status ParseLine(absl::string_view line, int64_t number, const LineDefaults& defaults,
                       LineRequest* out);

// Returns {"id", "text", "finish_reason", "usage", "attempts"}, or {"id", "text"?, "error",
// "attempts"} with the text that came before the error.
nlohmann::ordered_json AnswerLine(const nlohmann::json& id, const FinalResult& result);
// Returns {"id", "error": {"code", "message"}} for a line that never became a call.
nlohmann::ordered_json ErrorLine(const nlohmann::json& id, absl::string_view code,
                                 absl::string_view message);

}  // namespace tessera::client
