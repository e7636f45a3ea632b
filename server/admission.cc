#include "server/admission.h"

#include <atomic>
#include <random>

#include "absl/strings/str_format.h"

namespace tessera {

std::string NewRequestId() {
  static const uint32_t process = std::random_device()();
  static std::atomic<uint64_t> counter{0};
  return absl::StrFormat("req-%08x-%d", process, counter.fetch_add(1) + 1);
}

absl::Status TooManyToPrepare() {
  return RetryLater(absl::StatusCode::kResourceExhausted, "too many requests wait to be prepared",
                    reason::kQueueFull, absl::Seconds(1));
}

absl::StatusOr<Request> CheckRequest(const ServiceContext& services, const v1::GenerateRequest& in,
                                     absl::Time received, absl::Time deadline) {
  RETURN_IF_ERROR(services.lifecycle->CheckAccepting(received));
  ASSIGN_OR_RETURN(Request request, ConvertRequest(in, services.convert));
  RETURN_IF_ERROR(ConvertPrompt(in, services.convert).status());
  request.received = received;
  request.deadline = deadline;
  return request;
}

absl::Status BuildPrompt(const ServiceContext& services, const v1::GenerateRequest& in,
                         Request* request) {
  const Runtime& runtime = *services.runtime;
  const absl::Time start = absl::Now();
  ASSIGN_OR_RETURN(const PromptInput input, ConvertPrompt(in, services.convert));
  absl::StatusOr<Prompt> prompt = runtime.prompts->Build(input);
  if (!prompt.ok()) return WithClientPath(in, prompt.status());
  request->prompt = *std::move(prompt);
  if (!input.images.empty()) {
    request->image_decode_seconds = absl::ToDoubleSeconds(absl::Now() - start);
    services.metrics->ObserveImageDecode(request->image_decode_seconds);
  }
  RETURN_IF_ERROR(
      SetMaxTokens(in, runtime.context_tokens, services.config->default_max_tokens, request));
  RETURN_IF_ERROR(SetCommitPoint(in, request));
  return Validate(request->sampling, request->stop);
}

}  // namespace tessera
