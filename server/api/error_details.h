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

// The stable reasons. Appending is allowed, renaming is not.
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
inline constexpr const char* kNotAllowed = "NOT_ALLOWED";          // by the token
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
// UNAVAILABLE or RESOURCE_EXHAUSTED that a later try may not meet, with RetryInfo.
absl::Status RetryLater(absl::StatusCode code, absl::string_view message, absl::string_view reason,
                        absl::Duration delay);
// RESOURCE_EXHAUSTED for one tenant, with QuotaFailure on his name and RetryInfo.
absl::Status TenantQuota(absl::string_view tenant, absl::string_view message,
                         absl::string_view reason, absl::Duration delay);
// PERMISSION_DENIED: the caller is known, but his token does not bear this.
absl::Status NotAllowed(absl::string_view message);
// Any code with a reason and nothing else.
absl::Status ErrorWithReason(absl::StatusCode code, absl::string_view message,
                             absl::string_view reason);
// Gives an error of the engine's Submit the details of its code: a full queue is worth a retry.
absl::Status FromEngine(const absl::Status& status);

// Errors that are ours, not the caller's: INTERNAL and UNKNOWN.
bool IsServerFault(const absl::Status& status);

// The reason that ToGrpcStatus will say; "" for OK.
std::string ReasonOfError(const absl::Status& status);
// RetryInfo's delay; zero if the error carries none.
absl::Duration RetryDelay(const absl::Status& status);

// The field that an error names, as its BadRequest has it.
struct FieldDetails {
  std::string path, description;
};
std::optional<FieldDetails> FieldOfError(const absl::Status& status);
// Returns the reason of errors of this code that state none.
const char* ReasonOfCode(absl::StatusCode code);

// The status on the wire. `request_id` goes into ErrorInfo's metadata and replaces the text of
// INTERNAL and UNKNOWN errors, whose own words are for the log only. Messages are cut at 1 KiB, so
// that they fit a client's limit on metadata. OK gives OK.
grpc::Status ToGrpcStatus(const absl::Status& status, absl::string_view request_id = "");

}  // namespace tessera
