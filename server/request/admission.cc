#include "server/request/admission.h"

#include <algorithm>
#include <atomic>
#include <new>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/base.h"
#include "base/clock.h"
#include "base/worker_pool.h"
#include "server/api/error_details.h"
#include "server/observability/metrics.h"
#include "server/process/config.h"
#include "server/process/lifecycle.h"

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

// Checks the limits of the caller's token, and gives it a part of the caches of its own.
absl::Status ApplyLimits(const ServiceContext& services, const Lease& lease,
                         ParsedRequest* parsed) {
  const TenantLimits& limits = lease.limits();
  parsed->default_max_tokens = services.config->default_max_tokens;
  if (limits.max_tokens > 0) {
    parsed->default_max_tokens = std::min(limits.max_tokens, parsed->default_max_tokens);
    if (parsed->max_tokens.value_or(0) > limits.max_tokens) {
      services.metrics->CountRefusal("max_tokens");
      return FieldError("stopping.max_tokens",
                        absl::StrCat("this token may ask for at most ", limits.max_tokens),
                        reason::kNotAllowed, absl::StatusCode::kPermissionDenied);
    }
  }
  for (const std::string& name : parsed->request.policy->names()) {
    const auto& allowed = limits.policies;
    if (allowed.empty() || std::binary_search(allowed.begin(), allowed.end(), name)) continue;
    services.metrics->CountRefusal("policy");
    return FieldError("kv_policy.text",
                      absl::StrCat("this token may not use ", name,
                                   "; it may use: ", absl::StrJoin(allowed, ", ")),
                      reason::kNotAllowed, absl::StatusCode::kPermissionDenied);
  }
  parsed->request.salt = lease.CacheSalt(parsed->request.salt);
  return absl::OkStatus();
}

absl::StatusOr<Request> Build(const ServiceContext& services, ParsedRequest parsed) {
  const Runtime& runtime = *services.runtime;
  const absl::Time start = SteadyNow();
  absl::StatusOr<Prompt> prompt = runtime.prompts->Build(parsed.prompt.input);
  if (!prompt.ok()) return WithProtoPath(prompt.status(), parsed.prompt.paths);
  if (!prompt->images.empty()) {
    parsed.request.image_decode_seconds = absl::ToDoubleSeconds(SteadyNow() - start);
    services.metrics->ObserveImageDecode(parsed.request.image_decode_seconds);
  }
  return CompleteRequest(std::move(parsed), *std::move(prompt), runtime.context_tokens);
}

}  // namespace

absl::StatusOr<ParsedRequest> AdmitRequest(const ServiceContext& services, const Lease& lease,
                                           v1::GenerateRequest in, absl::Time received) {
  RETURN_IF_ERROR(services.lifecycle->CheckAccepting(received));
  ASSIGN_OR_RETURN(ParsedRequest parsed, ParseRequest(std::move(in), services.rules));
  RETURN_IF_ERROR(ApplyLimits(services, lease, &parsed));
  return parsed;
}

void AddDownloads(ParsedPrompt* prompt, std::vector<ImageDownload>* downloads) {
  for (const ImageUrl& image : prompt->urls) {
    downloads->push_back({image.url, absl::StrCat(prompt->paths.images[image.image], ".url"),
                          &prompt->input.images[image.image].data});
  }
}

void FetchImages(const ServiceContext& services, std::vector<ImageDownload> downloads,
                 ImageFetcher::Caller caller, std::function<void(absl::Status)> next) {
  services.images->Fetch(std::move(downloads), std::move(caller),
                         [workers = services.workers, next](absl::Status fetched) {
                           const auto go_on = [next] { next(absl::OkStatus()); };
                           if (!fetched.ok()) return next(fetched);
                           if (!workers->TrySubmit(go_on)) next(TooManyToPrepare());
                         });
}

absl::StatusOr<Request> BuildRequest(const ServiceContext& services, ParsedRequest parsed) {
  absl::StatusOr<Request> request = absl::UnknownError("");
  RETURN_IF_ERROR(WithinMemory([&] {
    request = Build(services, std::move(parsed));
    return request.status();
  }));
  return request;
}

}  // namespace tessera
