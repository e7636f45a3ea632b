#include "server/api/error_details.h"

#include <utility>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "engine/text/utf8.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/api/field_paths.h"

namespace tessera {
namespace {

constexpr size_t kMaxMessageBytes = 1024;

template <class Message>
std::string TypeUrl() {
  return absl::StrCat("type.googleapis.com/", Message::descriptor()->full_name());
}

template <class Message>
void Attach(const Message& message, absl::Status* status) {
  status->SetPayload(TypeUrl<Message>(), absl::Cord(message.SerializeAsString()));
}

template <class Message>
bool Has(const absl::Status& status) {
  return status.GetPayload(TypeUrl<Message>()).has_value();
}

google::rpc::ErrorInfo MakeInfo(absl::string_view reason) {
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  info.set_domain(kErrorDomain);
  return info;
}

// Cuts between characters: a part of one would make the protobuf string invalid.
std::string CutMessage(absl::string_view message) {
  std::string out;
  while (!message.empty() && out.size() < kMaxMessageBytes) {
    const int length = Utf8Length(message);
    if (length <= 0) {
      out += kReplacementCharacter;
    } else {
      out.append(message.data(), length);
    }
    message.remove_prefix(length <= 0 ? 1 : length);
  }
  if (!message.empty()) out += " ...";
  return out;
}

absl::Status QuotaError(absl::Status status, absl::string_view subject,
                        absl::string_view description) {
  google::rpc::QuotaFailure details;
  auto* violation = details.add_violations();
  violation->set_subject(std::string(subject));
  violation->set_description(CutMessage(description));
  Attach(details, &status);
  return status;
}

// Adds the details that follow from the code alone.
void AttachDerived(absl::Status* status) {
  if (status->code() == absl::StatusCode::kResourceExhausted &&
      !Has<google::rpc::QuotaFailure>(*status)) {
    *status = QuotaError(*status, "server", status->message());
  }
  if (!Has<google::rpc::ErrorInfo>(*status)) {
    Attach(MakeInfo(ReasonOfCode(status->code())), status);
  }
}

}  // namespace

const char* ReasonOfCode(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kDataLoss:
      return reason::kInvalidField;
    case absl::StatusCode::kResourceExhausted:
      return reason::kLimitExceeded;
    case absl::StatusCode::kUnavailable:
      return reason::kDraining;
    case absl::StatusCode::kCancelled:
      return reason::kCancelled;
    case absl::StatusCode::kDeadlineExceeded:
      return reason::kDeadlineExceeded;
    case absl::StatusCode::kUnimplemented:
      return reason::kUnimplemented;
    case absl::StatusCode::kUnauthenticated:
      return reason::kTokenMissing;
    case absl::StatusCode::kPermissionDenied:
      return reason::kNotAllowed;
    case absl::StatusCode::kNotFound:
      return reason::kRequestNotFound;
    case absl::StatusCode::kAlreadyExists:
      return reason::kRequestIdInUse;
    default:
      return reason::kInternal;
  }
}

absl::Status FieldError(absl::string_view path, absl::string_view what, absl::string_view reason,
                        absl::StatusCode code) {
  absl::Status status(code, absl::StrCat(path, ": ", what));
  google::rpc::BadRequest details;
  auto* violation = details.add_field_violations();
  violation->set_field(std::string(path));
  violation->set_description(CutMessage(what));
  Attach(details, &status);
  Attach(MakeInfo(reason), &status);
  return code == absl::StatusCode::kResourceExhausted ? QuotaError(std::move(status), path, what)
                                                      : status;
}

std::optional<FieldDetails> FieldOfError(const absl::Status& status) {
  google::rpc::BadRequest details;
  const auto payload = status.GetPayload(TypeUrl<google::rpc::BadRequest>());
  if (!payload.has_value() || !details.ParseFromString(std::string(*payload)) ||
      details.field_violations().empty()) {
    return std::nullopt;
  }
  const auto& violation = details.field_violations(0);
  return FieldDetails{violation.field(), violation.description()};
}

absl::Status RetryLater(absl::StatusCode code, absl::string_view message, absl::string_view reason,
                        absl::Duration delay) {
  absl::Status status(code, message);
  google::rpc::RetryInfo details;
  const int64_t millis = absl::ToInt64Milliseconds(delay);
  details.mutable_retry_delay()->set_seconds(millis / 1000);
  details.mutable_retry_delay()->set_nanos(static_cast<int32_t>(millis % 1000) * 1000000);
  Attach(details, &status);
  Attach(MakeInfo(reason), &status);
  return status;
}

absl::Status TenantQuota(absl::string_view tenant, absl::string_view message,
                         absl::string_view reason, absl::Duration delay) {
  return QuotaError(RetryLater(absl::StatusCode::kResourceExhausted, message, reason, delay),
                    tenant, message);
}

absl::Status NotAllowed(absl::string_view message) {
  return ErrorWithReason(absl::StatusCode::kPermissionDenied, message, reason::kNotAllowed);
}

absl::Status ErrorWithReason(absl::StatusCode code, absl::string_view message,
                             absl::string_view reason) {
  absl::Status status(code, message);
  Attach(MakeInfo(reason), &status);
  return status;
}

absl::Status FromEngine(const absl::Status& status) {
  if (GetFieldViolation(status).has_value()) return WithProtoPath(status, PromptPaths{});
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
      return RetryLater(status.code(), status.message(), reason::kQueueFull, absl::Seconds(1));
    case absl::StatusCode::kUnavailable:
      return RetryLater(status.code(), status.message(), reason::kDraining, absl::Seconds(1));
    default:
      return status;
  }
}

bool IsServerFault(const absl::Status& status) {
  return status.code() == absl::StatusCode::kInternal ||
         status.code() == absl::StatusCode::kUnknown;
}

std::string ReasonOfError(const absl::Status& status) {
  if (status.ok()) return "";
  google::rpc::ErrorInfo info;
  const auto payload = status.GetPayload(TypeUrl<google::rpc::ErrorInfo>());
  if (payload.has_value() && info.ParseFromString(std::string(*payload))) return info.reason();
  return ReasonOfCode(status.code());
}

absl::Duration RetryDelay(const absl::Status& status) {
  google::rpc::RetryInfo info;
  const auto payload = status.GetPayload(TypeUrl<google::rpc::RetryInfo>());
  if (!payload.has_value() || !info.ParseFromString(std::string(*payload))) {
    return absl::ZeroDuration();
  }
  return absl::Seconds(info.retry_delay().seconds()) +
         absl::Nanoseconds(info.retry_delay().nanos());
}

grpc::Status ToGrpcStatus(const absl::Status& status, absl::string_view request_id) {
  if (status.ok()) return grpc::Status::OK;
  absl::Status full = status;
  if (IsServerFault(status)) {
    full = absl::InternalError(absl::StrCat(
        "internal error", request_id.empty() ? "" : absl::StrCat(" in request ", request_id),
        "; the server's log says more"));
  }
  AttachDerived(&full);

  google::rpc::Status wire;
  wire.set_code(static_cast<int>(full.code()));
  wire.set_message(CutMessage(full.message()));
  full.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    auto* any = wire.add_details();
    any->set_type_url(std::string(url));
    any->set_value(std::string(payload));
    if (url == TypeUrl<google::rpc::ErrorInfo>() && !request_id.empty()) {
      google::rpc::ErrorInfo info;
      if (info.ParseFromString(any->value())) {
        (*info.mutable_metadata())["request_id"] = std::string(request_id);
        any->set_value(info.SerializeAsString());
      }
    }
  });
  return grpc::Status(static_cast<grpc::StatusCode>(full.code()), wire.message(),
                      wire.SerializeAsString());
}

}  // namespace tessera
