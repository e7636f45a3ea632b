#include "server/request/admission.h"

#include <algorithm>
#include <atomic>
#include <new>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/clock.h"

namespace tessera {

std::string NewRequestId() {
  static const uint32_t process = std::random_device()();
  static std::atomic<uint64_t> counter{0};
  return absl::StrFormat("req-%08x-%d", process, counter.fetch_add(1) + 1);
}

absl::Status WithinMemory(const std::function<absl::Status()>& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return RetryLater(absl::StatusCode::kResourceExhausted,
                      "the server has no memory for this request now", reason::kOutOfMemory,
                      absl::Seconds(1));
  }
}

absl::Status TooManyToPrepare() {
  return RetryLater(absl::StatusCode::kResourceExhausted, "too many requests wait to be prepared",
                    reason::kQueueFull, absl::Seconds(1));
}

namespace {

// The limits of the caller's token, and a cache of its own.
absl::Status ApplyGrant(const ServiceContext& services, const Grant& grant,
                        const v1::GenerateRequest& in, Request* request) {
  const TenantLimits& limits = grant.limits();
  if (limits.max_tokens > 0 && in.stopping().max_tokens() > limits.max_tokens) {
    services.metrics->CountRefusal("max_tokens");
    return FieldError("stopping.max_tokens",
                      absl::StrCat("this token may ask for at most ", limits.max_tokens),
                      reason::kNotAllowed, absl::StatusCode::kPermissionDenied);
  }
  for (const std::string& name : request->policy->names()) {
    const auto& may = limits.policies;
    if (may.empty() || std::binary_search(may.begin(), may.end(), name)) continue;
    services.metrics->CountRefusal("policy");
    return FieldError(
        "kv_policy.text",
        absl::StrCat("this token may not use ", name, "; it may use: ", absl::StrJoin(may, ", ")),
        reason::kNotAllowed, absl::StatusCode::kPermissionDenied);
  }
  request->salt = grant.Salt(request->salt);
  return absl::OkStatus();
}

absl::Status Build(const ServiceContext& services, const Grant& grant,
                   const v1::GenerateRequest& in, Request* request) {
  const Runtime& runtime = *services.runtime;
  const absl::Time start = SteadyNow();
  ASSIGN_OR_RETURN(const ConvertedPrompt converted, ConvertPrompt(in, services.convert));
  const PromptInput& input = converted.input;
  for (size_t i = 0; i < input.images.size(); ++i) {
    if (!input.images[i].data.empty()) continue;
    return FieldError(absl::StrCat(converted.paths.images[i], ".url"),
                      "only answers fetch pictures: send the picture itself");
  }
  absl::StatusOr<Prompt> prompt = runtime.prompts->Build(input);
  if (!prompt.ok()) return WithProtoPath(prompt.status(), converted.paths);
  request->prompt = *std::move(prompt);
  if (!input.images.empty()) {
    request->image_decode_seconds = absl::ToDoubleSeconds(SteadyNow() - start);
    services.metrics->ObserveImageDecode(request->image_decode_seconds);
  }
  const int allowed = grant.limits().max_tokens;
  const int by_default = services.config->default_max_tokens;
  RETURN_IF_ERROR(SetMaxTokens(in, runtime.context_tokens,
                               allowed > 0 ? std::min(allowed, by_default) : by_default, request));
  RETURN_IF_ERROR(SetCommitPoint(in, request));
  return WithProtoPath(Validate(request->sampling, request->stop), converted.paths);
}

}  // namespace

absl::StatusOr<Request> CheckRequest(const ServiceContext& services, const Grant& grant,
                                     const v1::GenerateRequest& in, absl::Time received,
                                     absl::Time deadline) {
  RETURN_IF_ERROR(services.lifecycle->CheckAccepting(received));
  ASSIGN_OR_RETURN(Request request, ConvertRequest(in, services.convert));
  RETURN_IF_ERROR(ApplyGrant(services, grant, in, &request));
  RETURN_IF_ERROR(ConvertPrompt(in, services.convert).status());
  request.received = received;
  request.deadline = deadline;
  return request;
}

void FetchImages(const ServiceContext& services, const std::vector<v1::GenerateRequest*>& requests,
                 ImageFetcher::Caller caller, std::function<void(absl::Status)> next) {
  services.images->Fetch(requests, std::move(caller),
                         [workers = services.workers, next](absl::Status fetched) {
                           const auto go_on = [next] { next(absl::OkStatus()); };
                           if (!fetched.ok()) return next(fetched);
                           if (!workers->TrySubmit(go_on)) next(TooManyToPrepare());
                         });
}

absl::Status BuildPrompt(const ServiceContext& services, const Grant& grant,
                         const v1::GenerateRequest& in, Request* request) {
  return WithinMemory([&] { return Build(services, grant, in, request); });
}

}  // namespace tessera
