// Errors as OpenAI clients know them: an HTTP status, and {"error": {message, type, param, code}}.
//
// `code` is the stable reason of error_details.h in lower case ("queue_full"), `param` the field's
// path in the JSON request. Threads: safe.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "server/http/http_server.h"

namespace tessera {

int HttpStatusOf(const absl::Status& status);
// {"error": {...}}; `request_id` is named where the server's log has more to say.
nlohmann::ordered_json OpenAiError(const absl::Status& status, absl::string_view request_id);
// With Retry-After where a later try may succeed.
HttpResponse ErrorResponse(const absl::Status& status, absl::string_view request_id);
// For errors found before any status exists: an unknown route, a body that is too large.
HttpResponse PlainError(int http_status, absl::string_view message, absl::string_view code);
// Text for a reader: whatever bytes stand in it, the result is valid JSON.
std::string DumpJson(const nlohmann::ordered_json& json);

}  // namespace tessera
