#include "server/http/http_error.h"

#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/api/error_details.h"

namespace tessera {
namespace {

// The JSON name of every proto field that an OpenAI request can set, longest path first. A path
// that is in neither table has the same name on both sides: "messages[0].role".
struct Name {
  absl::string_view proto, json;
};
constexpr Name kNames[] = {
    {"sampling.", ""},
    {"stopping.", ""},
    {"response.include_stop", "include_stop_str_in_output"},
    {"response.", ""},
    {"kv_policy.commit_at", "kv_commit_at"},
    {"kv_policy.text", "kv_policy"},
    {"cache.salt", "cache_salt"},
    {"tokenized.ids", "prompt"},
    {"content", "prompt"},
};
// The names of a part of messages[i].content[j].
constexpr Name kPartNames[] = {
    {".image.url", ".image_url.url"},
    {".image", ".image_url"},
};

std::string JsonPath(absl::string_view path) {
  for (const Name& name : kNames) {
    if (!absl::StartsWith(path, name.proto)) continue;
    // A completion's prompt has no parts.
    if (name.json == "prompt") return "prompt";
    return absl::StrCat(name.json, path.substr(name.proto.size()));
  }
  for (const Name& name : kPartNames) {
    if (absl::ConsumeSuffix(&path, name.proto)) return absl::StrCat(path, name.json);
  }
  return std::string(path);
}

const char* TypeOf(int http_status) {
  switch (http_status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    case 503:
    case 504:
      return "overloaded_error";
    default:
      return http_status >= 500 ? "server_error" : "invalid_request_error";
  }
}

nlohmann::ordered_json Body(int http_status, absl::string_view message,
                            nlohmann::ordered_json param, absl::string_view code) {
  return {{"error",
           {{"message", std::string(message)},
            {"type", TypeOf(http_status)},
            {"param", std::move(param)},
            {"code", std::string(code)}}}};
}

}  // namespace

int HttpStatusOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kDataLoss:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAlreadyExists:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      // A full queue empties; a value over a limit never fits.
      return RetryDelay(status) > absl::ZeroDuration() ? 429 : 413;
    case absl::StatusCode::kCancelled:
      return 499;
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

nlohmann::ordered_json OpenAiError(const absl::Status& status, absl::string_view request_id) {
  const int http_status = HttpStatusOf(status);
  const std::string code = absl::AsciiStrToLower(ReasonOfError(status));
  if (IsServerFault(status)) {
    return Body(
        http_status,
        absl::StrCat("internal error in request ", request_id, "; the server's log says more"),
        nullptr, code);
  }
  const std::optional<FieldDetails> field = FieldOfError(status);
  if (!field.has_value()) return Body(http_status, status.message(), nullptr, code);
  // An unknown parameter is the client's own word, whatever proto field it resembles.
  const bool unknown = ReasonOfError(status) == reason::kUnknownField;
  const std::string param = unknown ? field->path : JsonPath(field->path);
  return Body(http_status, absl::StrCat(param, ": ", field->description), param, code);
}

HttpResponse ErrorResponse(const absl::Status& status, absl::string_view request_id) {
  HttpResponse response;
  response.status = HttpStatusOf(status);
  response.body = DumpJson(OpenAiError(status, request_id));
  if (const absl::Duration delay = RetryDelay(status); delay > absl::ZeroDuration()) {
    // Whole seconds, rounded up: 0 would mean at once.
    const int64_t seconds = (absl::ToInt64Milliseconds(delay) + 999) / 1000;
    response.headers.emplace_back("Retry-After", absl::StrCat(seconds));
  }
  if (response.status == 401) {  // RFC 6750: a caller without a token gets no error code
    response.headers.emplace_back("WWW-Authenticate",
                                  ReasonOfError(status) == reason::kTokenUnknown
                                      ? "Bearer realm=\"tessera\", error=\"invalid_token\""
                                      : "Bearer realm=\"tessera\"");
  }
  return response;
}

HttpResponse PlainError(int http_status, absl::string_view message, absl::string_view code) {
  HttpResponse response;
  response.status = http_status;
  response.body = DumpJson(Body(http_status, message, nullptr, code));
  return response;
}

std::string DumpJson(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace tessera
