#include "server/http/openai_writer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/base.h"
#include "base/clock.h"
#include "base/worker_pool.h"
#include "server/api/error_details.h"
#include "server/http/http_error.h"
#include "server/observability/metrics.h"
#include "server/observability/traceparent.h"
#include "server/process/config.h"
#include "server/process/lifecycle.h"
#include "server/request/admission.h"

namespace tessera {
namespace {

std::string ServerSentEvent(const nlohmann::ordered_json& json) {
  return absl::StrCat("data: ", DumpJson(json), "\n\n");
}

}  // namespace

void OpenAiWriter::Start(const ServiceContext* services, RequestRegistry* registry,
                         std::shared_ptr<Lease> lease, OpenAiKind kind, std::string request_id,
                         std::shared_ptr<HttpExchange> exchange) {
  CallInfo call;
  call.id = std::move(request_id);
  call.lease = std::move(lease);
  call.received = SteadyNow();
  call.deadline = call.received + services->config->max_request_time;
  call.peer = exchange->request().peer;
  call.traceparent = Traceparent(exchange->request().Header("traceparent"));
  // Taken out here, because the exchange forgets its request as soon as it is answered.
  auto body = std::make_shared<std::string>(std::move(exchange->request().body));
  std::unique_ptr<OpenAiWriter> owned(new OpenAiWriter(services, kind, exchange));
  OpenAiWriter* const writer = owned.get();
  const auto active = ActiveRequest::Open(services, registry, std::move(call), std::move(owned));
  exchange->Watch([active, writer](bool) { writer->OnWritten(); },
                  [active] { active->OnDisconnected(); });
  const auto parse = [active, writer, body] {
    absl::StatusOr<GenerationPlan> plan = writer->Parse(std::exchange(*body, {}));
    if (!plan.ok()) return active->End(plan.status());
    active->Prepare(*std::move(plan), /*on_worker=*/true);
  };
  if (!services->workers->TrySubmit(parse)) active->End(TooManyToPrepare());
}

absl::StatusOr<GenerationPlan> OpenAiWriter::Parse(const std::string& body) {
  const CallInfo& call = request().call();
  RETURN_IF_ERROR(services_->lifecycle->CheckAccepting(call.received));
  RETURN_IF_ERROR(WithinMemory([&]() -> absl::Status {
    ASSIGN_OR_RETURN(options_, ParseOpenAiRequest(kind_, body, services_->runtime->model));
    return absl::OkStatus();
  }));
  std::vector<v1::GenerateRequest> prompts = std::move(options_.prompts);
  const int further = static_cast<int>(prompts.size()) * options_.n - 1;
  RETURN_IF_ERROR(call.lease->AcquireMore(further, SteadyNow()));
  GenerationPlan plan;
  plan.answers_each = options_.n;
  for (v1::GenerateRequest& prompt : prompts) {
    ASSIGN_OR_RETURN(ParsedRequest parsed,
                     AdmitRequest(*services_, *call.lease, std::move(prompt), call.received));
    plan.prompts.push_back(std::move(parsed));
  }
  return plan;
}

void OpenAiWriter::Accept(const std::vector<AcceptedPrompt>& prompts, int answers_each) {
  reply_ = std::make_unique<OpenAiReply>(kind_, request().call().id, services_->runtime->model.name,
                                         prompts.front().logprobs, absl::ToUnixSeconds(absl::Now()),
                                         services_->runtime->tokenizer.get());
  choices_.resize(prompts.size() * static_cast<size_t>(answers_each));
  shown_.resize(choices_.size());
  for (size_t i = 0; i < choices_.size(); ++i) {
    choices_[i].counts_prompt = i % answers_each == 0;
    choices_[i].usage.prompt_tokens = prompts[i / answers_each].prompt_tokens;
  }
}

bool OpenAiWriter::Add(int answer, Event event) {
  OpenAiChoice& choice = choices_[answer];
  if (options_.stream) {  // a piece holds what is new
    choice.text_offset += static_cast<int64_t>(choice.text.size());
    choice.text.clear();
    choice.logprobs.clear();
  }
  choice.text += event.text;
  choice.logprobs.insert(choice.logprobs.end(), event.logprobs.begin(), event.logprobs.end());
  choice.done = event.done;
  choice.reason = event.reason;
  choice.usage.output_tokens += static_cast<int>(event.ids.size());
  if (event.done) choice.usage = event.usage;
  if (options_.stream) {
    pending_ += ServerSentEvent(
        reply_->Piece(choice, answer, /*first=*/!shown_[answer], options_.continuous_usage));
    shown_[answer] = true;
  }
  return false;
}

void OpenAiWriter::Write() { SendPiece(); }

void OpenAiWriter::SendPiece() {
  std::string piece = std::exchange(pending_, {});
  if (std::exchange(began_, true)) return exchange_->Write(std::move(piece));
  HttpResponse head;
  head.content_type = "text/event-stream";
  head.headers.emplace_back("X-Request-Id", request().call().id);
  head.body = std::move(piece);
  exchange_->BeginStream(std::move(head));
}

void OpenAiWriter::OnWritten() {
  if (!finishing_) return request().OnWritten(true);
  exchange_->EndStream();
  request().OnDone();
}

void OpenAiWriter::Finish(const absl::Status& status) {
  // An error before the first piece has an HTTP status of its own.
  if (!status.ok() && !began_) return Respond(ErrorResponse(status, request().call().id));
  if (!options_.stream) {
    HttpResponse response;
    response.body = DumpJson(reply_->Answer(choices_));
    return Respond(std::move(response));
  }
  if (!status.ok()) {
    pending_ += ServerSentEvent(OpenAiError(status, request().call().id));
  } else {
    if (options_.include_usage) pending_ += ServerSentEvent(reply_->UsagePiece(choices_));
    pending_ += "data: [DONE]\n\n";
  }
  finishing_ = true;
  SendPiece();
}

void OpenAiWriter::Respond(HttpResponse response) {
  response.headers.emplace_back("X-Request-Id", request().call().id);
  exchange_->Respond(std::move(response));
  request().OnDone();
}

EndLabels OpenAiWriter::CountEnd(const absl::Status& status) {
  const char* route = kind_ == OpenAiKind::kChat ? "/v1/chat/completions" : "/v1/completions";
  const int http_status = HttpStatusOf(status);
  services_->metrics->CountHttp(route, http_status);
  return {"http", route, http_status};
}

}  // namespace tessera
