// A failed call as people and programs need it: code, message, and google.rpc details decoded.
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
  // BadRequest: (field path, what is wrong).
  std::vector<std::pair<std::string, std::string>> field_violations;
  std::optional<absl::Duration> retry_delay;  // RetryInfo
  std::string reason;                         // ErrorInfo: stable, for programs
  // Every other detail, one readable line each; one of an unknown type is named.
  std::vector<std::string> other;

  bool ok() const { return code == grpc::StatusCode::OK; }
};

// "RESOURCE_EXHAUSTED"
absl::string_view CodeName(grpc::StatusCode code);

// Details come from the trailer grpc-status-details-bin, which gRPC hands over as error_details();
// what cannot be parsed is said so in `other`.
RpcError DecodeError(const grpc::Status& status);

// "CODE: message", then an indented line for each detail that says more; ends with a newline.
// Without control characters: servers quote what they were sent.
std::string FormatError(const RpcError& error);
// {"code", "message", "reason"?, "fields"?, "retry_after_seconds"?, "details"?}
nlohmann::ordered_json ToJson(const RpcError& error);

}  // namespace tessera::client
