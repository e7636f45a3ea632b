#include "client/commands/chat_session.h"

#include <atomic>
#include <utility>

#include "absl/strings/strip.h"
#include "base/base.h"

namespace tessera::client {

ChatSession::ChatSession(std::shared_ptr<grpc::Channel> channel, Settings settings,
                         Interrupt* interrupt, CallQueue::OnDelta on_delta)
    : settings_(std::move(settings)),
      interrupt_(interrupt),
      calls_(std::move(channel), std::move(on_delta)) {}

absl::StatusOr<v1::GenerateRequest> ChatSession::Compose(absl::string_view text,
                                                         std::vector<v1::Image> images) const {
  v1::GenerateRequest request;
  settings_.generation.Apply(&request);
  if (settings_.explain) request.mutable_response()->set_explain(true);
  if (settings_.raw) {
    ASSIGN_OR_RETURN(*request.mutable_content(),
                     SplitAtMarkers(text, kRawMarker, std::move(images)));
    request.set_apply_template(false);
    return request;
  }
  ASSIGN_OR_RETURN(Parts parts, TurnParts(text, std::move(images)));
  if (!settings_.system.empty()) {
    v1::Message& system = *request.add_messages();
    system.set_role(v1::Message::ROLE_SYSTEM);
    system.add_content()->set_text(settings_.system);
  }
  for (const v1::Message& message : history_) *request.add_messages() = message;
  v1::Message& user = *request.add_messages();
  user.set_role(v1::Message::ROLE_USER);
  *user.mutable_content() = std::move(parts);
  return request;
}

absl::StatusOr<CallResult> ChatSession::Ask(absl::string_view text, std::vector<v1::Image> images) {
  ASSIGN_OR_RETURN(v1::GenerateRequest composed, Compose(text, std::move(images)));
  auto request = std::make_shared<const v1::GenerateRequest>(std::move(composed));
  std::optional<CallResult> result;
  std::atomic<bool> interrupted = false;
  {
    calls_.Start(0, request, settings_.timeout);
    Interrupt::Scope on_interrupt(interrupt_, [&] {
      interrupted = true;
      calls_.CancelAll();
    });
    result = calls_.Next(Clock::time_point::max());
  }
  TESSERA_CHECK(result.has_value());
  if (interrupted && result->error.code == grpc::StatusCode::CANCELLED) {
    result->error.message = "stopped by the interrupt key";
  }
  if (result->ok() && !settings_.raw) {
    history_.push_back(request->messages(request->messages_size() - 1));
    v1::Message& answer = history_.emplace_back();
    answer.set_role(v1::Message::ROLE_ASSISTANT);
    // Chat templates put their own spaces around an answer.
    answer.add_content()->set_text(std::string(absl::StripAsciiWhitespace(result->text)));
  }
  return std::move(*result);
}

}  // namespace tessera::client
