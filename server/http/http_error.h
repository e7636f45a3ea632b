// Errors for OpenAI clients: an HTTP status, and {"error": {message, type, param, code}}.
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
// Returns {"error": {...}}. A server fault names `request_id`, under which the log says more.
nlohmann::ordered_json OpenAiError(const absl::Status& status, absl::string_view request_id);
// Adds Retry-After if a later try may succeed.
HttpResponse ErrorResponse(const absl::Status& status, absl::string_view request_id);
// Makes an error without a status: an unknown route, a body that is too large.
HttpResponse PlainError(int http_status, absl::string_view message, absl::string_view code);
// Returns valid JSON whatever bytes the strings have.
std::string DumpJson(const nlohmann::ordered_json& json);

}  // namespace tessera
