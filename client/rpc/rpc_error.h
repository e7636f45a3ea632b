// A failed call: code, message, and decoded google.rpc details. Threads: functions only, safe.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpcpp/support/status.h"
#include "nlohmann/json.hpp"

namespace tessera::client {

struct RpcError {
  grpc::StatusCode code = grpc::StatusCode::OK;
  std::string message;
  // From BadRequest: (field path, description).
  std::vector<std::pair<std::string, std::string>> field_violations;
  std::optional<absl::Duration> retry_delay;  // from RetryInfo
  std::string reason;                         // from ErrorInfo: a stable name for programs
  // One readable line for every other detail. For an unknown type it is the type's name.
  std::vector<std::string> other;

  bool ok() const { return code == grpc::StatusCode::OK; }
};

// Returns a name such as "RESOURCE_EXHAUSTED".
std::string CodeName(grpc::StatusCode code);

// Decodes the details from the trailer grpc-status-details-bin, which gRPC returns as
// error_details(). If they cannot be parsed, a line of `other` says so.
RpcError DecodeError(const grpc::Status& status);

// Returns "CODE: message" and an indented line for each further detail; ends with a newline. Drops
// control characters, because servers quote text from requests.
std::string FormatError(const RpcError& error);
// Returns {"code", "message", "reason"?, "fields"?, "retry_after_seconds"?, "details"?}.
nlohmann::ordered_json ToJson(const RpcError& error);

}  // namespace tessera::client
