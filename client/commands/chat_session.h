// A conversation with the server: holds the turns so far, and asks the next one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/cli/interrupt.h"
#include "client/rpc/call_queue.h"
#include "client/rpc/generation_options.h"
#include "client/rpc/prompt_parts.h"

namespace tessera::client {

// Threads: one. `on_delta` is called on a gRPC thread while Ask waits.
class ChatSession {
 public:
  struct Settings {
    std::string system;
    GenerationOptions generation;
    absl::Duration timeout;
    bool raw = false;      // send the text as the whole prompt: no template, no history
    bool explain = false;  // ask for Finished.explanation
  };

  ChatSession(std::shared_ptr<grpc::Channel> channel, Settings settings, Interrupt* interrupt,
              CallQueue::OnDelta on_delta);

  // Returns the request that Ask would send: the history and this turn, or for `raw` the text
  // alone, split at <image>. INVALID_ARGUMENT if markers and images do not match.
  absl::StatusOr<v1::GenerateRequest> Compose(absl::string_view text,
                                              std::vector<v1::Image> images) const;
  // Waits for the whole answer; an interrupt cancels it. Only a good answer enters the history, so
  // that a failed turn can be asked again. Returns errors of Compose as the status, and those of
  // the call in the result.
  absl::StatusOr<CallResult> Ask(absl::string_view text, std::vector<v1::Image> images);

  // Forgets the turns and keeps the system prompt.
  void Clear() { history_.clear(); }
  int turns() const { return static_cast<int>(history_.size()) / 2; }

 private:
  const Settings settings_;
  Interrupt* const interrupt_;
  std::vector<v1::Message> history_;
  CallQueue calls_;
};

}  // namespace tessera::client
