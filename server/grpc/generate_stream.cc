#include "server/grpc/generate_stream.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/clock.h"
#include "server/observability/rpc_names.h"
#include "server/observability/traceparent.h"
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

}  // namespace

GenerateStream::GenerateStream(const ServiceContext* services, StreamRegistry* registry,
                               grpc::CallbackServerContext* context, v1::GenerateRequest request)
    : services_(services),
      registry_(registry),
      context_(context),
      received_(SteadyNow()),
      deadline_(std::min(ClientDeadline(*context), received_ + services->config->max_request_time)),
      peer_(context->peer()),
      trace_(Traceparent(ClientHeader(*context, kTraceHeader))),
      request_(std::move(request)) {}

std::string GenerateStream::id() const {
  MutexLock lock(mutex_);
  return id_;
}

void GenerateStream::Start() {
  // A sender takes the wake-up over: starting a write costs tens of microseconds, which the
  // engine's thread must not spend.
  output_queue_ =
      std::make_shared<OutputQueue>([weak = weak_from_this(), senders = services_->senders] {
        senders->TrySubmit([weak] {
          if (auto self = weak.lock()) self->Pump();
        });
      });
  absl::Status status = Admit();
  if (status.ok() && NamesImageUrls(request_)) {
    return FetchImages(*services_, {&request_},
                       {request_.request_id(), deadline_,
                        [output_queue = output_queue_] { return output_queue->cancelled(); }},
                       [self = shared_from_this()](const absl::Status& fetched) {
                         fetched.ok() ? self->Prepare() : self->End(fetched);
                       });
  }
  if (status.ok() &&
      !services_->workers->TrySubmit([self = shared_from_this()] { self->Prepare(); })) {
    status = TooManyToPrepare();
  }
  if (!status.ok()) End(status);
}

absl::Status GenerateStream::Admit() {
  ASSIGN_OR_RETURN(auto grant, AdmitRpc(*services_, *context_, Right::kWork, received_));
  {
    MutexLock lock(mutex_);
    grant_ = std::move(grant);
  }
  const std::string header = ClientHeader(*context_, kRequestIdHeader);
  if (!header.empty()) RETURN_IF_ERROR(CheckRequestId(kRequestIdHeader, header));
  if (request_.request_id().empty()) {
    request_.set_request_id(header.empty() ? NewRequestId() : header);
  }
  RETURN_IF_ERROR(CheckRequestId("request_id", request_.request_id()));
  context_->AddInitialMetadata(kRequestIdHeader, request_.request_id());
  {
    MutexLock lock(mutex_);
    id_ = request_.request_id();
  }

  ASSIGN_OR_RETURN(engine_request_,
                   CheckRequest(*services_, *grant_, request_, received_, deadline_));
  reply_.token_ids = request_.response().token_ids();
  reply_.logprobs = engine_request_.top_logprobs >= 0;
  return absl::OkStatus();
}

void GenerateStream::Prepare() {
  v1::Accepted accepted;
  const absl::Status status =
      output_queue_->cancelled() ? CancelReason() : BuildAndSubmit(&accepted);
  Action action = Action::kNone;
  {
    MutexLock lock(mutex_);
    if (phase_ == Phase::kFinished) {
      output_queue_->Cancel();  // it ended while the worker was busy
    } else if (!status.ok()) {
      action = FinishLocked(status);
    } else {
      phase_ = Phase::kStreaming;
      writing_ = true;
      op_started_ = SteadyNow();
      *response_.mutable_accepted() = std::move(accepted);
      action = Action::kWrite;
    }
  }
  Act(action);
}

absl::Status GenerateStream::BuildAndSubmit(v1::Accepted* accepted) {
  const Runtime& runtime = *services_->runtime;
  Request& request = engine_request_;
  if (SteadyNow() >= deadline_) return CancelReason();
  RETURN_IF_ERROR(BuildPrompt(*services_, *grant_, request_, &request));
  accepted->set_request_id(request_.request_id());
  request.id = request_.request_id();
  accepted->set_model(runtime.model.name);
  accepted->set_prompt_tokens(static_cast<int32_t>(request.prompt.ids.size()));
  accepted->set_image_tokens(request.prompt.image_tokens);
  accepted->set_kv_policy(request.policy->Text());
  request_.Clear();  // compressed pictures are not needed any more

  int position = 0;
  RETURN_IF_ERROR(FromEngine(runtime.engine->Submit(std::move(request), output_queue_, &position)));
  accepted->set_queue_position(position);
  return absl::OkStatus();
}

void GenerateStream::Pump() {
  Action action;
  {
    MutexLock lock(mutex_);
    action = NextLocked();
  }
  Act(action);
}

GenerateStream::Action GenerateStream::NextLocked() {
  if (phase_ != Phase::kStreaming || writing_) return Action::kNone;
  if (forced_.has_value()) return FinishLocked(*forced_);
  while (!last_.has_value()) {
    std::optional<Event> event = output_queue_->Take(SteadyNow());
    if (!event.has_value()) return Action::kNone;
    const bool has_delta = ConvertDelta(*event, reply_, *services_->runtime->tokenizer,
                                        (response_.Clear(), response_.mutable_delta()));
    if (event->done) last_ = *std::move(event);
    if (has_delta) {
      writing_ = true;
      op_started_ = SteadyNow();
      return Action::kWrite;
    }
  }
  if (!last_->status.ok()) return FinishLocked(FromEngine(last_->status));
  response_.Clear();
  ConvertFinished(*last_, response_.mutable_finished());
  if (last_->explanation != nullptr) {
    ConvertExplanation(*last_->explanation, services_->runtime->model.processor,
                       *services_->runtime->tokenizer,
                       response_.mutable_finished()->mutable_explanation());
    last_->explanation.reset();
  }
  phase_ = Phase::kFinished;
  op_started_ = SteadyNow();
  grant_->Release();
  return Action::kWriteLast;
}

GenerateStream::Action GenerateStream::FinishLocked(const absl::Status& status) {
  phase_ = Phase::kFinished;
  op_started_ = SteadyNow();
  if (grant_ != nullptr) grant_->Release();
  final_ = status;
  return Action::kFinish;
}

// After StartWriteAndFinish or Finish the object may be gone at any moment.
void GenerateStream::Act(Action action) {
  switch (action) {
    case Action::kNone:
      return;
    case Action::kWrite:
      StartWrite(&response_);
      return;
    case Action::kWriteLast:
      StartWriteAndFinish(&response_, grpc::WriteOptions(), grpc::Status::OK);
      return;
    case Action::kFinish: {
      grpc::Status wire;
      {
        MutexLock lock(mutex_);
        wire = ToGrpcStatus(final_, id_);
      }
      Finish(std::move(wire));
      return;
    }
  }
}

void GenerateStream::OnWriteDone(bool ok) {
  Action action = Action::kNone;
  {
    MutexLock lock(mutex_);
    writing_ = false;
    if (ok) {
      action = NextLocked();
    } else if (phase_ != Phase::kFinished) {
      output_queue_->Cancel();
      action = FinishLocked(forced_.value_or(CancelReason()));
    }
  }
  Act(action);
}

void GenerateStream::OnCancel() { End(CancelReason()); }

void GenerateStream::End(const absl::Status& status) {
  if (output_queue_ != nullptr) output_queue_->Cancel();
  Action action = Action::kNone;
  {
    MutexLock lock(mutex_);
    if (phase_ == Phase::kFinished) return;
    if (!forced_.has_value()) forced_ = status;
    if (!writing_) action = FinishLocked(*forced_);  // else OnWriteDone will
  }
  Act(action);
}

bool GenerateStream::CancelIfStalled(absl::Time now, absl::Duration limit) {
  MutexLock lock(mutex_);
  const bool pending = writing_ || phase_ == Phase::kFinished;
  if (done_ || given_up_ || !pending || now - op_started_ <= limit) return false;
  given_up_ = true;
  forced_ = final_ = absl::CancelledError("the client has stopped reading");
  output_queue_->Cancel();
  context_->TryCancel();  // the pending operation fails, and with it the call ends
  return true;
}

absl::Status GenerateStream::CancelReason() const {
  if (SteadyNow() >= deadline_) {
    return absl::DeadlineExceededError("the request's deadline has passed");
  }
  return absl::CancelledError("the client went away");
}

void GenerateStream::OnDone() {
  absl::Status status;
  Usage usage;
  std::string id, tenant;
  {
    MutexLock lock(mutex_);
    done_ = true;
    id = id_;
    if (grant_ != nullptr) tenant = grant_->tenant();
    status = final_;
    if (last_.has_value()) usage = last_->usage;
  }
  services_->metrics->CountRpc("Generate", static_cast<int>(status.code()));
  services_->log->Write(IsServerFault(status) ? LogLevel::kError : LogLevel::kInfo, "generate",
                        {{"request_id", id},
                         {"code", RpcCodes()[static_cast<int>(status.code())]},
                         {"error", status.message()},
                         {"peer", peer_},
                         {"tenant", tenant},
                         {"traceparent", trace_},
                         {"seconds", absl::ToDoubleSeconds(SteadyNow() - received_)},
                         {"prompt_tokens", usage.prompt_tokens},
                         {"image_tokens", usage.image_tokens},
                         {"cached_tokens", usage.cached_tokens},
                         {"output_tokens", usage.output_tokens},
                         {"first_token_seconds", usage.first_token_seconds},
                         {"kv_bytes_peak", usage.kv_bytes_peak},
                         {"kv_policy", usage.policy}});
  registry_->Remove(this);  // the last reference, as a rule
}

}  // namespace tessera
