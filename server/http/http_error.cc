#include "server/http/http_error.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/api/error_details.h"

namespace tessera {
namespace {

// Where a field of our protocol stands in the JSON of an OpenAI request.
struct Renamed {
  const char* proto;
  const char* json;
};
constexpr Renamed kRenamed[] = {
    {"sampling.", ""},
    {"stopping.", ""},
    {"kv_policy.text", "kv_policy"},
    {"cache.salt", "cache_salt"},
    {"tokenized.ids", "prompt"},
    {"response.", ""},
};

std::string JsonPath(const std::string& path) {
  for (const Renamed& renamed : kRenamed) {
    if (absl::StartsWith(path, renamed.proto)) {
      return absl::StrCat(renamed.json, path.substr(absl::string_view(renamed.proto).size()));
    }
  }
  constexpr absl::string_view kUrl = ".image.url";
  if (absl::EndsWith(path, kUrl)) {
    return absl::StrCat(path.substr(0, path.size() - kUrl.size()), ".image_url.url");
  }
  return path;
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
      // A full queue passes; what exceeds a limit never will.
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
  const std::string path = LeadingFieldPath(status.message());
  if (path.empty()) return Body(http_status, status.message(), nullptr, code);
  const std::string param = JsonPath(path);
  return Body(http_status, absl::StrCat(param, status.message().substr(path.size())), param, code);
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
  if (response.status == 401) {  // RFC 6750: no error is named to who brought no token
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
