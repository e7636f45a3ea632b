// Longer than 300 lines because it is one state machine.
#include "server/request/active_request.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "base/clock.h"
#include "base/worker_pool.h"
#include "server/api/error_details.h"
#include "server/observability/log.h"
#include "server/observability/rpc_names.h"
#include "server/request/admission.h"
#include "server/request/request_registry.h"

namespace tessera {

std::shared_ptr<ActiveRequest> ActiveRequest::Open(const ServiceContext* services,
                                                   RequestRegistry* registry, CallInfo call,
                                                   std::unique_ptr<ResponseWriter> writer) {
  std::shared_ptr<ActiveRequest> request(
      new ActiveRequest(services, registry, std::move(call), std::move(writer)));
  registry->Add(request);
  return request;
}

ActiveRequest::ActiveRequest(const ServiceContext* services, RequestRegistry* registry,
                             CallInfo call, std::unique_ptr<ResponseWriter> writer)
    : services_(services), registry_(registry), call_(std::move(call)), writer_(std::move(writer)) {
  writer_->request_ = this;
}

void ActiveRequest::Prepare(GenerationPlan plan, bool on_worker) {
  plan_ = std::move(plan);
  std::vector<ImageDownload> downloads;
  for (ParsedRequest& prompt : plan_.prompts) AddDownloads(&prompt.prompt, &downloads);
  if (!downloads.empty()) {
    return FetchImages(
        *services_, std::move(downloads),
        {call_.id, call_.deadline, [self = shared_from_this()] { return self->finished(); }},
        [self = shared_from_this()](const absl::Status& fetched) {
          fetched.ok() ? self->BuildAndSubmit() : self->End(fetched);
        });
  }
  if (on_worker) return BuildAndSubmit();
  if (!services_->workers->TrySubmit([self = shared_from_this()] { self->BuildAndSubmit(); })) {
    End(TooManyToPrepare());
  }
}

void ActiveRequest::BuildAndSubmit() {
  absl::StatusOr<std::vector<Request>> built = BuildPrompts();
  if (!built.ok()) return End(built.status());
  MakeAnswers(*built);
  std::vector<AcceptedPrompt> accepted;
  for (size_t i = 0; i < built->size(); ++i) {
    Request& request = (*built)[i];
    AcceptedPrompt prompt;
    prompt.prompt_tokens = static_cast<int>(request.prompt.ids.size());
    prompt.image_tokens = request.prompt.image_tokens;
    prompt.policy = request.policy->Text();
    prompt.logprobs = request.top_logprobs >= 0;
    const absl::Status submitted = Submit(static_cast<int>(i) * plan_.answers_each,
                                          std::move(request), &prompt.queue_position);
    if (!submitted.ok()) return End(submitted);
    accepted.push_back(std::move(prompt));
  }
  {
    MutexLock lock(mutex_);
    if (phase_ == Phase::kFinished) return CancelLocked();  // it ended in the meantime
    phase_ = Phase::kStreaming;
    writer_->Accept(accepted, plan_.answers_each);
  }
  Pump();
}

// All prompts are built before the first is submitted: a bad one fails the request as a whole.
absl::StatusOr<std::vector<Request>> ActiveRequest::BuildPrompts() {
  std::vector<Request> built;
  for (ParsedRequest& prompt : plan_.prompts) {
    if (finished() || SteadyNow() >= call_.deadline) return CancelReason();
    ASSIGN_OR_RETURN(Request request, BuildRequest(*services_, std::move(prompt)));
    request.received = call_.received;
    request.deadline = call_.deadline;
    built.push_back(std::move(request));
  }
  plan_.prompts.clear();  // compressed images are megabytes
  return built;
}

void ActiveRequest::MakeAnswers(const std::vector<Request>& built) {
  // A sender takes the wake-up over: starting a write costs tens of microseconds, which the
  // engine's thread must not spend.
  const auto notify = [weak = weak_from_this(), senders = services_->senders] {
    senders->TrySubmit([weak] {
      if (auto self = weak.lock()) self->Pump();
    });
  };
  const int n = plan_.answers_each;
  MutexLock lock(mutex_);
  answers_.resize(built.size() * static_cast<size_t>(n));
  for (size_t i = 0; i < answers_.size(); ++i) {
    const Request& request = built[i / n];
    Answer& answer = answers_[i];
    answer.queue = std::make_shared<OutputQueue>(notify);
    answer.usage.policy = request.policy->Text();
    answer.usage.prompt_tokens = static_cast<int>(request.prompt.ids.size());
    answer.usage.image_tokens = request.prompt.image_tokens;
    answer.submitted = i % n == 0;
    if (answer.submitted) continue;
    answer.waiting = request;
    answer.waiting.sampling.seed += i % n;  // equal seeds would give equal answers
  }
}

absl::Status ActiveRequest::Submit(int answer, Request request, int* queue_position) {
  std::shared_ptr<OutputQueue> queue;
  {
    MutexLock lock(mutex_);
    if (phase_ == Phase::kFinished) return final_;
    queue = answers_[answer].queue;
  }
  request.id = answer == 0 ? call_.id : absl::StrCat(call_.id, "-", answer);
  return FromEngine(
      services_->runtime->engine->Submit(std::move(request), std::move(queue), queue_position));
}

void ActiveRequest::SubmitWaiting(const std::vector<int>& answers) {
  for (const int answer : answers) {
    Request request;
    {
      MutexLock lock(mutex_);
      request = std::move(answers_[answer].waiting);
    }
    int position = 0;
    const absl::Status submitted = Submit(answer, std::move(request), &position);
    if (!submitted.ok()) return End(submitted);
  }
}

bool ActiveRequest::finished() const {
  MutexLock lock(mutex_);
  return phase_ == Phase::kFinished;
}

void ActiveRequest::Pump() {
  Action action;
  std::vector<int> submit;
  {
    MutexLock lock(mutex_);
    action = NextLocked(&submit);
  }
  SubmitWaiting(submit);
  Act(action);
}

ActiveRequest::Action ActiveRequest::NextLocked(std::vector<int>* submit) {
  if (phase_ != Phase::kStreaming || writing_) return Action::kNone;
  if (forced_.has_value()) return FinishLocked(*forced_);
  bool full = writer_->HasPending();
  if (!full) {
    const absl::StatusOr<bool> taken = TakeLocked(submit);
    if (!taken.ok()) return FinishLocked(taken.status());
    full = *taken;
  }
  const bool all_done =
      std::all_of(answers_.begin(), answers_.end(), [](const Answer& a) { return a.done; });
  if (all_done && !full) return FinishLocked(absl::OkStatus());
  if (!writer_->HasPending()) return Action::kNone;
  writing_ = true;
  op_started_ = SteadyNow();
  return Action::kWrite;
}

absl::StatusOr<bool> ActiveRequest::TakeLocked(std::vector<int>* submit) {
  for (size_t i = 0; i < answers_.size(); ++i) {
    Answer& answer = answers_[i];
    while (!answer.done) {
      std::optional<Event> event = answer.queue->Take(SteadyNow());
      if (!event.has_value()) break;
      if (event->done && !event->status.ok()) return FromEngine(event->status);
      answer.done = event->done;
      answer.usage.output_tokens += static_cast<int>(event->ids.size());
      if (event->done) answer.usage = event->usage;
      for (size_t j = i + 1; j < answers_.size() && j % plan_.answers_each != 0; ++j) {
        if (!std::exchange(answers_[j].submitted, true)) submit->push_back(static_cast<int>(j));
      }
      if (writer_->Add(static_cast<int>(i), *std::move(event))) return true;
    }
  }
  return false;
}

ActiveRequest::Action ActiveRequest::FinishLocked(const absl::Status& status) {
  phase_ = Phase::kFinished;
  op_started_ = SteadyNow();
  final_ = status;
  if (!status.ok()) CancelLocked();
  // Before the last byte: a client that asks again at once must find its permit free.
  if (call_.lease != nullptr) call_.lease->Release();
  return Action::kFinish;
}

void ActiveRequest::CancelLocked() {
  for (const Answer& answer : answers_) answer.queue->Cancel();
}

void ActiveRequest::Act(Action action) {
  if (action == Action::kNone) return;
  if (action == Action::kWrite) return writer_->Write();
  absl::Status status;
  {
    MutexLock lock(mutex_);
    status = final_;
  }
  writer_->Finish(status);
}

void ActiveRequest::OnWritten(bool ok) {
  Action action = Action::kNone;
  std::vector<int> submit;
  {
    MutexLock lock(mutex_);
    writing_ = false;
    if (ok) {
      action = NextLocked(&submit);
    } else if (phase_ != Phase::kFinished) {
      action = FinishLocked(forced_.value_or(CancelReason()));
    }
  }
  SubmitWaiting(submit);
  Act(action);
}

void ActiveRequest::End(const absl::Status& status) {
  Action action = Action::kNone;
  {
    MutexLock lock(mutex_);
    if (phase_ == Phase::kFinished) return;
    CancelLocked();
    if (!forced_.has_value()) forced_ = status;
    if (!writing_) action = FinishLocked(*forced_);  // else OnWritten will
  }
  Act(action);
}

bool ActiveRequest::CancelIfStalled(absl::Time now, absl::Duration limit) {
  MutexLock lock(mutex_);
  const bool pending = writing_ || phase_ == Phase::kFinished;
  if (done_ || broken_off_ || !pending || now - op_started_ <= limit) return false;
  broken_off_ = true;
  forced_ = final_ = absl::CancelledError("the client has stopped reading");
  CancelLocked();
  writer_->Break();
  return true;
}

absl::Status ActiveRequest::CancelReason() const {
  if (SteadyNow() >= call_.deadline) {
    return absl::DeadlineExceededError("the request's deadline has passed");
  }
  return absl::CancelledError("the client went away");
}

void ActiveRequest::OnDisconnected() {
  {
    MutexLock lock(mutex_);
    if (done_) return;
    const absl::Status status = broken_off_ ? final_ : CancelReason();
    FinishLocked(status);
  }
  OnDone();
}

void ActiveRequest::OnDone() {
  absl::Status status;
  Usage usage;
  {
    MutexLock lock(mutex_);
    if (std::exchange(done_, true)) return;
    status = final_;
    usage = TotalLocked();
  }
  const EndLabels labels = writer_->CountEnd(status);
  services_->log->Write(
      IsServerFault(status) ? LogLevel::kError : LogLevel::kInfo, labels.log_message,
      {{"request_id", call_.id},
       {"route", labels.route},
       {"status", labels.status},
       {"code", RpcCodes()[static_cast<int>(status.code())]},
       {"error", status.message()},
       {"peer", call_.peer},
       {"tenant", call_.lease == nullptr ? "" : absl::string_view(call_.lease->tenant())},
       {"traceparent", call_.traceparent},
       {"seconds", absl::ToDoubleSeconds(SteadyNow() - call_.received)},
       {"prompt_tokens", usage.prompt_tokens},
       {"image_tokens", usage.image_tokens},
       {"cached_tokens", usage.cached_tokens},
       {"output_tokens", usage.output_tokens},
       {"first_token_seconds", usage.first_token_seconds},
       {"kv_bytes_peak", usage.kv_bytes_peak},
       {"kv_policy", usage.policy}});
  registry_->Remove(this);  // the last reference, as a rule
}

Usage ActiveRequest::TotalLocked() const {
  Usage total;
  for (size_t i = 0; i < answers_.size(); ++i) {
    const Usage& usage = answers_[i].usage;
    if (i == 0) {
      total.policy = usage.policy;
      total.first_token_seconds = usage.first_token_seconds;
    }
    if (i % plan_.answers_each == 0) {
      total.prompt_tokens += usage.prompt_tokens;
      total.image_tokens += usage.image_tokens;
      total.cached_tokens += usage.cached_tokens;
    }
    total.output_tokens += usage.output_tokens;
    total.kv_bytes_peak += usage.kv_bytes_peak;
  }
  return total;
}

}  // namespace tessera
