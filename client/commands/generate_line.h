// One JSON line of `tessera generate`: the request it asks for and the line that answers it.
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
  std::string system;           // for lines with a "prompt"
  std::string image_directory;  // for relative image paths; empty: the working directory
};

struct LineRequest {
  nlohmann::json id;  // the line's "id", else its number from 1
  v1::GenerateRequest request;
};

// Keys: "id" (string or number); "prompt" (string, with "images", "system" and "raw") or "messages"
// ([{"role", "content": string or [{"type": "text", "text"} | {"type": "image", "path"}]}]); every
// key of GenerationOptions. Unknown keys are errors. `*id` is set even when the rest is wrong.
absl::Status ParseLine(absl::string_view line, int64_t number, const LineDefaults& defaults,
                       LineRequest* out);

// {"id", "text", "finish_reason", "usage", "attempts"} or {"id", "error", "attempts", "text"?}:
// text that came before an error is kept.
nlohmann::ordered_json AnswerLine(const nlohmann::json& id, const FinalResult& result);
// {"id", "error": {"code", "message"}}: the line never became a call.
nlohmann::ordered_json ErrorLine(const nlohmann::json& id, absl::string_view code,
                                 absl::string_view message);

}  // namespace tessera::client
