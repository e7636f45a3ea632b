#include "client/rpc/rpc_error.h"

#include <map>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/cli/terminal.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace tessera::client {
namespace {

// Returns whether `any` holds a T that parses.
template <class T>
bool Unpack(const google::protobuf::Any& any, T* out) {
  return any.Is<T>() && any.UnpackTo(out);
}

void Decode(const google::protobuf::Any& any, RpcError* error) {
  google::rpc::BadRequest bad_request;
  google::rpc::RetryInfo retry;
  google::rpc::ErrorInfo info;
  google::rpc::QuotaFailure quota;
  if (Unpack(any, &bad_request)) {
    for (const auto& violation : bad_request.field_violations()) {
      error->field_violations.emplace_back(violation.field(), violation.description());
    }
  } else if (Unpack(any, &retry)) {
    error->retry_delay = absl::Seconds(retry.retry_delay().seconds()) +
                         absl::Nanoseconds(retry.retry_delay().nanos());
  } else if (Unpack(any, &info)) {
    error->reason = info.reason();
    std::string line = absl::StrCat("reason ", info.reason(), " (", info.domain(), ")");
    // The proto map has no order, so std::map gives it one.
    for (const auto& [key, value] :
         std::map<std::string, std::string>(info.metadata().begin(), info.metadata().end())) {
      absl::StrAppend(&line, " ", key, "=", value);
    }
    error->other.push_back(std::move(line));
  } else if (Unpack(any, &quota)) {
    for (const auto& violation : quota.violations()) {
      error->other.push_back(
          absl::StrCat("quota of ", violation.subject(), ": ", violation.description()));
    }
  } else {
    error->other.push_back(absl::StrCat("detail of type ", any.type_url()));
  }
}

}  // namespace

std::string CodeName(grpc::StatusCode code) {
  // Both enumerations have the canonical codes with the same numbers.
  return absl::StatusCodeToString(static_cast<absl::StatusCode>(code));
}

RpcError DecodeError(const grpc::Status& status) {
  RpcError error;
  error.code = status.error_code();
  error.message = status.error_message();
  if (status.ok() || status.error_details().empty()) return error;
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) {
    error.other.push_back("the server sent error details that cannot be parsed");
    return error;
  }
  for (const google::protobuf::Any& any : details.details()) Decode(any, &error);
  return error;
}

std::string FormatError(const RpcError& error) {
  std::string out = absl::StrCat(CodeName(error.code), ": ", error.message, "\n");
  for (const auto& [field, description] : error.field_violations) {
    const std::string line = absl::StrCat(field, ": ", description);
    if (line != error.message) absl::StrAppend(&out, "  ", line, "\n");
  }
  if (error.retry_delay) {
    absl::StrAppend(&out, "  retry after ", absl::FormatDuration(*error.retry_delay), "\n");
  }
  for (const std::string& line : error.other) absl::StrAppend(&out, "  ", line, "\n");
  return Printable(out);
}

nlohmann::ordered_json ToJson(const RpcError& error) {
  nlohmann::ordered_json json;
  json["code"] = CodeName(error.code);
  json["message"] = error.message;
  if (!error.reason.empty()) json["reason"] = error.reason;
  for (const auto& [field, description] : error.field_violations) {
    json["fields"].push_back({{"field", field}, {"description", description}});
  }
  if (error.retry_delay) {
    json["retry_after_seconds"] = absl::ToDoubleSeconds(*error.retry_delay);
  }
  for (const std::string& line : error.other) json["details"].push_back(line);
  return json;
}

}  // namespace tessera::client
