// Errors inside the daemon, and how they become gRPC statuses that programs can act on.
//
// Errors travel as absl::Status. Their payloads are serialized google.rpc details, keyed by type
// URL; ToGrpcStatus turns them into `grpc-status-details-bin`. The engine's errors name fields by
// type: WithProtoPath (field_paths.h) or FromEngine translates them. Every error on the wire
// carries an ErrorInfo of domain "tessera" with one of the reasons below, which never change their
// meaning. Threads: safe.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpcpp/support/status.h"

namespace tessera {

constexpr const char* kErrorDomain = "tessera";

// The stable reasons. They may be added to, never renamed.
namespace reason {
inline constexpr const char* kInvalidField = "INVALID_FIELD";
inline constexpr const char* kUnknownField = "UNKNOWN_FIELD";
inline constexpr const char* kLimitExceeded = "LIMIT_EXCEEDED";  // never fits: do not retry
inline constexpr const char* kQueueFull = "QUEUE_FULL";          // retry later
inline constexpr const char* kImageNotFetched = "IMAGE_NOT_FETCHED";
inline constexpr const char* kStarting = "STARTING";           // retry later
inline constexpr const char* kDraining = "DRAINING";           // retry elsewhere
inline constexpr const char* kServerFailed = "SERVER_FAILED";  // retry elsewhere
inline constexpr const char* kOutOfMemory = "OUT_OF_MEMORY";   // retry later
inline constexpr const char* kModelNotFound = "MODEL_NOT_FOUND";
inline constexpr const char* kRequestNotFound = "REQUEST_NOT_FOUND";
inline constexpr const char* kRequestIdInUse = "REQUEST_ID_IN_USE";
inline constexpr const char* kPolicyNotAllowed = "KV_POLICY_NOT_ALLOWED";
inline constexpr const char* kExplainNotAllowed = "EXPLAIN_NOT_ALLOWED";
inline constexpr const char* kTokenMissing = "TOKEN_MISSING";
inline constexpr const char* kTokenUnknown = "TOKEN_UNKNOWN";
inline constexpr const char* kNotAllowed = "NOT_ALLOWED";          // the token lacks it
inline constexpr const char* kRateLimited = "RATE_LIMITED";        // retry later
inline constexpr const char* kTooManyAtOnce = "TOO_MANY_AT_ONCE";  // retry later
inline constexpr const char* kCancelled = "CANCELLED";
inline constexpr const char* kDeadlineExceeded = "DEADLINE_EXCEEDED";
inline constexpr const char* kUnimplemented = "UNIMPLEMENTED";
inline constexpr const char* kInternal = "INTERNAL";
}  // namespace reason

// Returns an error about one field of the client's request: "<path>: <what>", with a BadRequest on
// `path`, and a QuotaFailure for RESOURCE_EXHAUSTED.
absl::Status FieldError(absl::string_view path, absl::string_view what,
                        absl::string_view reason = reason::kInvalidField,
                        absl::StatusCode code = absl::StatusCode::kInvalidArgument);
// Returns UNAVAILABLE or RESOURCE_EXHAUSTED with RetryInfo: a later try may succeed.
absl::Status RetryLater(absl::StatusCode code, absl::string_view message, absl::string_view reason,
                        absl::Duration delay);
// Returns RESOURCE_EXHAUSTED for one tenant, with a QuotaFailure on its name and RetryInfo.
absl::Status TenantQuota(absl::string_view tenant, absl::string_view message,
                         absl::string_view reason, absl::Duration delay);
// Returns PERMISSION_DENIED: the caller is known, but its token does not permit the call.
absl::Status NotAllowed(absl::string_view message);
// Returns an error with a reason and no other details.
absl::Status ErrorWithReason(absl::StatusCode code, absl::string_view message,
                             absl::string_view reason);
// Adds details to an error of the engine: a field's path, or RetryInfo for a full queue.
absl::Status FromEngine(const absl::Status& status);

// Returns true for INTERNAL and UNKNOWN: the fault is ours, not the caller's.
bool IsServerFault(const absl::Status& status);

// Returns the reason that ToGrpcStatus sends; "" for OK.
std::string ReasonOfError(const absl::Status& status);
// Returns RetryInfo's delay; zero if the error has none.
absl::Duration RetryDelay(const absl::Status& status);

// The field in an error's BadRequest.
struct FieldDetails {
  std::string path, description;
};
std::optional<FieldDetails> FieldOfError(const absl::Status& status);
// Returns the reason of errors of this code that state none.
const char* ReasonOfCode(absl::StatusCode code);

// Returns the status for the wire. `request_id` goes into ErrorInfo's metadata and replaces the
// text of INTERNAL and UNKNOWN errors, which is for the log only. Messages are cut at 1 KiB to fit
// a client's limit on metadata. OK gives OK.
grpc::Status ToGrpcStatus(const absl::Status& status, absl::string_view request_id = "");

}  // namespace tessera
