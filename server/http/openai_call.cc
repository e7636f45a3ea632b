#include "server/http/openai_call.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/clock.h"
#include "server/http/http_error.h"
#include "server/observability/traceparent.h"
#include "server/request/admission.h"

namespace tessera {
namespace {

std::string ServerSentEvent(const nlohmann::ordered_json& json) {
  return absl::StrCat("data: ", DumpJson(json), "\n\n");
}

}  // namespace

OpenAiCall::OpenAiCall(const ServiceContext* services, StreamRegistry* registry,
                       std::shared_ptr<Grant> grant, OpenAiKind kind, std::string request_id,
                       std::shared_ptr<HttpExchange> exchange)
    : services_(services),
      registry_(registry),
      grant_(std::move(grant)),
      kind_(kind),
      id_(std::move(request_id)),
      received_(SteadyNow()),
      deadline_(received_ + services->config->max_request_time),
      exchange_(std::move(exchange)),
      peer_(exchange_->request().peer),
      trace_(Traceparent(exchange_->request().Header("traceparent"))) {}

void OpenAiCall::Start() {
  registry_->Add(shared_from_this());
  exchange_->Watch([self = shared_from_this()](bool) { self->OnWritten(); },
                   [self = shared_from_this()] { self->OnGone(); });
  if (!services_->workers->TrySubmit([self = shared_from_this()] { self->Prepare(); })) {
    {
      MutexLock lock(mutex_);
      forced_ = TooManyToPrepare();
      phase_ = Phase::kAnswering;
    }
    Pump();
  }
}

void OpenAiCall::Prepare() {
  if (absl::Status status = Parse(); !status.ok()) return Begin(status);
  std::vector<v1::GenerateRequest*> requests;
  for (v1::GenerateRequest& prompt : in_.prompts) {
    if (NamesImageUrls(prompt)) requests.push_back(&prompt);
  }
  if (requests.empty()) return Begin(BuildAndSubmit());
  FetchImages(*services_, requests,
              {id_, deadline_,
               [self = shared_from_this()] {
                 MutexLock lock(self->mutex_);
                 return self->forced_.has_value();
               }},
              [self = shared_from_this()](const absl::Status& fetched) {
                self->Begin(fetched.ok() ? self->BuildAndSubmit() : fetched);
              });
}

void OpenAiCall::Begin(absl::Status prepared) {
  {
    MutexLock lock(mutex_);
    if (!prepared.ok() && !forced_.has_value()) forced_ = std::move(prepared);
    if (phase_ == Phase::kPreparing) phase_ = Phase::kAnswering;
  }
  Pump();
}

absl::Status OpenAiCall::Parse() {
  RETURN_IF_ERROR(services_->lifecycle->CheckAccepting(received_));
  RETURN_IF_ERROR(WithinMemory([&]() -> absl::Status {
    ASSIGN_OR_RETURN(
        in_, ParseOpenAiRequest(kind_, exchange_->request().body, services_->runtime->model));
    return absl::OkStatus();
  }));
  exchange_->request().body = std::string();  // megabytes of pictures, decoded into in_
  const int further = static_cast<int>(in_.prompts.size()) * in_.n - 1;
  RETURN_IF_ERROR(grant_->TakeMore(further, SteadyNow()));
  stream_ = in_.stream;
  include_usage_ = in_.include_usage;
  continuous_usage_ = in_.continuous_usage;
  for (const v1::GenerateRequest& prompt : in_.prompts) {
    ASSIGN_OR_RETURN(Request request,
                     CheckRequest(*services_, *grant_, prompt, received_, deadline_));
    requests_.push_back(std::move(request));
  }
  return absl::OkStatus();
}

absl::Status OpenAiCall::BuildAndSubmit() {
  const Runtime& runtime = *services_->runtime;
  // All prompts are built before the first is submitted: a bad one fails the call.
  for (size_t i = 0; i < requests_.size(); ++i) {
    RETURN_IF_ERROR(BuildPrompt(*services_, *grant_, in_.prompts[i], &requests_[i]));
    in_.prompts[i].Clear();
  }
  std::vector<Request> built = std::move(requests_);
  const int n = in_.n;
  reply_ =
      std::make_unique<OpenAiReply>(kind_, id_, runtime.model.name, built.front().top_logprobs >= 0,
                                    absl::ToUnixSeconds(absl::Now()), runtime.tokenizer.get());
  {
    MutexLock lock(mutex_);
    answers_.resize(built.size() * n);
    choices_.resize(answers_.size());
    for (size_t i = 0; i < answers_.size(); ++i) {
      Answer& answer = answers_[i];
      answer.output_queue =
          std::make_shared<OutputQueue>([weak = weak_from_this(), senders = services_->senders] {
            senders->TrySubmit([weak] {
              if (auto self = weak.lock()) self->Pump();
            });
          });
      choices_[i].counts_prompt = answer.submitted = i % n == 0;
      choices_[i].usage.prompt_tokens = static_cast<int>(built[i / n].prompt.ids.size());
      if (answer.submitted) continue;
      answer.waiting = built[i / n];
      answer.waiting.sampling.seed += i % n;  // equal seeds would give equal answers
    }
  }
  for (size_t i = 0; i < built.size(); ++i) {
    RETURN_IF_ERROR(Submit(static_cast<int>(i) * n, std::move(built[i])));
  }
  return absl::OkStatus();
}

absl::Status OpenAiCall::Submit(int index, Request request) {
  std::shared_ptr<OutputQueue> output_queue;
  {
    MutexLock lock(mutex_);
    if (forced_.has_value()) return *forced_;
    output_queue = answers_[index].output_queue;
  }
  request.id = index == 0 ? id_ : absl::StrCat(id_, "-", index);
  int position = 0;
  return FromEngine(
      services_->runtime->engine->Submit(std::move(request), output_queue, &position));
}

absl::Status OpenAiCall::TakeLocked(Step* step) {
  for (size_t i = 0; i < answers_.size(); ++i) {
    Answer& answer = answers_[i];
    OpenAiChoice& choice = choices_[i];
    while (!choice.done) {
      std::optional<Event> event = answer.output_queue->Take(SteadyNow());
      if (!event.has_value()) break;
      if (event->done && !event->status.ok()) return FromEngine(event->status);
      if (stream_) {  // a piece holds what is new
        choice.text_offset += static_cast<int64_t>(choice.text.size());
        choice.text.clear();
        choice.logprobs.clear();
      }
      choice.text += event->text;
      choice.logprobs.insert(choice.logprobs.end(), event->logprobs.begin(), event->logprobs.end());
      choice.done = event->done;
      choice.reason = event->reason;
      choice.usage.output_tokens += static_cast<int>(event->ids.size());
      if (event->done) choice.usage = event->usage;
      if (stream_) {
        const bool first = !std::exchange(answer.shown, true);
        step->bytes +=
            ServerSentEvent(reply_->Piece(choice, static_cast<int>(i), first, continuous_usage_));
      }
      for (size_t j = i + 1; j < answers_.size() && !choices_[j].counts_prompt; ++j) {
        if (!std::exchange(answers_[j].submitted, true)) step->submit.push_back(j);
      }
    }
  }
  return absl::OkStatus();
}

OpenAiCall::Step OpenAiCall::NextLocked() {
  Step step;
  if (phase_ != Phase::kAnswering || writing_) return step;
  final_ = forced_.has_value() ? *forced_ : TakeLocked(&step);
  const bool last = !final_.ok() || std::all_of(choices_.begin(), choices_.end(),
                                                [](const auto& c) { return c.done; });
  if (last) grant_->Release();
  if (last && !final_.ok()) {
    for (const Answer& answer : answers_) answer.output_queue->Cancel();
  }
  // An error before the first piece has a status of its own.
  if (!stream_ || (!began_ && !final_.ok())) {
    if (!last) return step;
    phase_ = Phase::kEnded;
    step.what = Step::Do::kRespond;
    if (final_.ok()) step.bytes = DumpJson(reply_->Answer(choices_));
    return step;
  }
  if (last) {
    phase_ = Phase::kLast;
    if (!final_.ok()) {
      step.bytes += ServerSentEvent(OpenAiError(final_, id_));
    } else {
      if (include_usage_) step.bytes += ServerSentEvent(reply_->UsagePiece(choices_));
      step.bytes += "data: [DONE]\n\n";
    }
  }
  if (step.bytes.empty()) return step;
  writing_ = true;
  step.what = std::exchange(began_, true) ? Step::Do::kWrite : Step::Do::kBegin;
  return step;
}

void OpenAiCall::Pump() {
  Step step;
  absl::Status status;
  {
    MutexLock lock(mutex_);
    step = NextLocked();
    status = final_;
  }
  SubmitWaiting(step.submit);
  HttpResponse head;
  switch (step.what) {
    case Step::Do::kNothing:
      return;
    case Step::Do::kWrite:
      return exchange_->Write(std::move(step.bytes));
    case Step::Do::kBegin:
      head.content_type = "text/event-stream";
      break;
    case Step::Do::kRespond:
      if (!status.ok()) head = ErrorResponse(status, id_);
      break;
  }
  head.headers.emplace_back("X-Request-Id", id_);
  if (status.ok() || step.what == Step::Do::kBegin) head.body = std::move(step.bytes);
  if (step.what == Step::Do::kBegin) return exchange_->BeginStream(std::move(head));
  exchange_->Respond(std::move(head));
  Finish();
}

void OpenAiCall::SubmitWaiting(const std::vector<int>& indices) {
  for (const int index : indices) {
    Request request;
    {
      MutexLock lock(mutex_);
      request = std::move(answers_[index].waiting);
    }
    if (absl::Status status = Submit(index, std::move(request)); !status.ok()) return End(status);
  }
}

void OpenAiCall::OnWritten() {
  bool last;
  {
    MutexLock lock(mutex_);
    writing_ = false;
    last = phase_ == Phase::kLast;
    if (last) phase_ = Phase::kEnded;
  }
  if (!last) return Pump();
  exchange_->EndStream();
  Finish();
}

void OpenAiCall::End(const absl::Status& status) {
  {
    MutexLock lock(mutex_);
    if (!forced_.has_value()) forced_ = status;
  }
  Pump();  // while the worker prepares, or a piece is being written, what follows that sees it
}

void OpenAiCall::OnGone() {
  {
    MutexLock lock(mutex_);
    if (phase_ == Phase::kEnded) return;
    phase_ = Phase::kEnded;
    forced_ = final_ = absl::CancelledError("the client went away");
    for (const Answer& answer : answers_) answer.output_queue->Cancel();
  }
  Finish();
}

void OpenAiCall::Finish() {
  absl::Status status;
  int64_t prompt = 0, output = 0, images = 0, peak = 0;
  std::string policy;
  {
    MutexLock lock(mutex_);
    status = final_;
    for (const OpenAiChoice& choice : choices_) {
      if (choice.counts_prompt) prompt += choice.usage.prompt_tokens;
      if (choice.counts_prompt) images += choice.usage.image_tokens;
      output += choice.usage.output_tokens;
      peak += choice.usage.kv_bytes_peak;
      policy = choice.usage.policy;
    }
  }
  const char* route = kind_ == OpenAiKind::kChat ? "/v1/chat/completions" : "/v1/completions";
  const int http_status = HttpStatusOf(status);
  services_->metrics->CountHttp(route, http_status);
  services_->log->Write(IsServerFault(status) ? LogLevel::kError : LogLevel::kInfo, "http",
                        {{"request_id", id_},
                         {"route", route},
                         {"status", http_status},
                         {"error", status.message()},
                         {"peer", peer_},
                         {"tenant", grant_->tenant()},
                         {"traceparent", trace_},
                         {"seconds", absl::ToDoubleSeconds(SteadyNow() - received_)},
                         {"prompt_tokens", prompt},
                         {"image_tokens", images},
                         {"output_tokens", output},
                         {"kv_bytes_peak", peak},
                         {"kv_policy", policy}});
  registry_->Remove(this);
}

}  // namespace tessera
