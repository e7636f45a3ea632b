#include "server/grpc/generate_reactor.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "base/base.h"
#include "base/clock.h"
#include "server/api/error_details.h"
#include "server/grpc/unary_call.h"
#include "server/observability/metrics.h"
#include "server/observability/traceparent.h"
#include "server/process/config.h"
#include "server/request/active_request.h"
#include "server/request/admission.h"

namespace tessera {
namespace {

constexpr const char* kRequestIdHeader = "x-request-id";
constexpr const char* kTraceHeader = "traceparent";

absl::Time ClientDeadline(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return ToSteady(deadline);
}

std::string ClientHeader(const grpc::CallbackServerContext& context, const char* name) {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find(name);
  return found == metadata.end() ? "" : std::string(found->second.data(), found->second.size());
}

// Lets the caller in, and finds the request's id: the field's, the header's, or a new one.
absl::Status Identify(const ServiceContext& services, grpc::CallbackServerContext* context,
                      const std::string& field, CallInfo* call) {
  ASSIGN_OR_RETURN(call->lease,
                   AdmitRpc(services, *context, Permission::kInference, call->received));
  const std::string header = ClientHeader(*context, kRequestIdHeader);
  if (!header.empty()) RETURN_IF_ERROR(CheckRequestId(kRequestIdHeader, header));
  if (!field.empty()) RETURN_IF_ERROR(CheckRequestId("request_id", field));
  call->id = !field.empty() ? field : !header.empty() ? header : NewRequestId();
  context->AddInitialMetadata(kRequestIdHeader, call->id);
  return absl::OkStatus();
}

}  // namespace

GenerateReactor* GenerateReactor::Start(const ServiceContext* services, RequestRegistry* registry,
                                        grpc::CallbackServerContext* context,
                                        v1::GenerateRequest request) {
  CallInfo call;
  call.received = SteadyNow();
  call.deadline =
      std::min(ClientDeadline(*context), call.received + services->config->max_request_time);
  call.peer = context->peer();
  call.traceparent = Traceparent(ClientHeader(*context, kTraceHeader));
  const absl::Status identified = Identify(*services, context, request.request_id(), &call);
  std::unique_ptr<GenerateReactor> owned(new GenerateReactor(services, context));
  GenerateReactor* const reactor = owned.get();
  const auto active = ActiveRequest::Open(services, registry, std::move(call), std::move(owned));
  if (!identified.ok()) {
    active->End(identified);
    return reactor;
  }
  auto parsed =
      AdmitRequest(*services, *active->call().lease, std::move(request), active->call().received);
  if (!parsed.ok()) {
    active->End(parsed.status());
    return reactor;
  }
  reactor->reply_ = parsed->reply;
  GenerationPlan plan;
  plan.prompts.push_back(*std::move(parsed));
  active->Prepare(std::move(plan), /*on_worker=*/false);
  return reactor;
}

void GenerateReactor::Accept(const std::vector<AcceptedPrompt>& prompts, int) {
  const AcceptedPrompt& prompt = prompts.front();
  v1::Accepted& accepted = *response_.mutable_accepted();
  accepted.set_request_id(request().call().id);
  accepted.set_model(services_->runtime->model.name);
  accepted.set_prompt_tokens(prompt.prompt_tokens);
  accepted.set_image_tokens(prompt.image_tokens);
  accepted.set_queue_position(prompt.queue_position);
  accepted.set_kv_policy(prompt.policy);
  pending_ = true;
}

bool GenerateReactor::Add(int, Event event) {
  response_.Clear();
  pending_ = ConvertDelta(event, reply_, *services_->runtime->tokenizer, response_.mutable_delta());
  if (event.done) last_ = std::move(event);
  return pending_;
}

void GenerateReactor::Write() {
  pending_ = false;
  StartWrite(&response_);
}

// After StartWriteAndFinish or Finish the object may be gone at any moment.
void GenerateReactor::Finish(const absl::Status& status) {
  if (!status.ok()) {
    ServerWriteReactor::Finish(ToGrpcStatus(status, request().call().id));
    return;
  }
  const Runtime& runtime = *services_->runtime;
  response_.Clear();
  ConvertFinished(*last_, response_.mutable_finished());
  if (last_->explanation != nullptr) {
    ConvertExplanation(*last_->explanation, runtime.model.processor, *runtime.tokenizer,
                       response_.mutable_finished()->mutable_explanation());
    last_->explanation.reset();
  }
  StartWriteAndFinish(&response_, grpc::WriteOptions(), grpc::Status::OK);
}

EndLabels GenerateReactor::CountEnd(const absl::Status& status) {
  const int code = static_cast<int>(status.code());
  services_->metrics->CountRpc("Generate", code);
  return {"generate", "Generate", code};
}

void GenerateReactor::OnWriteDone(bool ok) { request().OnWritten(ok); }
void GenerateReactor::OnCancel() { request().OnCancelled(); }
void GenerateReactor::OnDone() { request().OnDone(); }

}  // namespace tessera
