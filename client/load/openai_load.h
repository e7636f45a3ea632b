// Sends requests to a server's OpenAI port in a closed loop, for `tessera bench --compare_http`.
// Each request in flight has a thread and a persistent connection.
//
// Uses plain HTTP/1.1 and chat completions as event streams. Bodies are made before the clock
// starts, as RunLoad does for gRPC. Threads: one at a time; Run's own threads end with it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/cli/interrupt.h"
#include "client/rpc/call_queue.h"
#include "tessera/v1/inference.pb.h"

namespace tessera::client {

// Returns the same request as the body of a chat completion, streamed and with usage. REQUIRES: a
// request of Workload: `content` of texts and image bytes, and no fields that Workload never sets.
std::string ToOpenAiBody(const v1::GenerateRequest& request);

struct OpenAiAnswer {
  std::string error;                    // if not empty, the other fields have no meaning
  Clock::time_point sent, first, done;  // `first` is when the first event was read
  int64_t prompt_tokens = 0, output_tokens = 0;
};

// Parses a whole event stream; leaves out the times.
OpenAiAnswer ParseOpenAiStream(absl::string_view events);

class OpenAiLoad {
 public:
  // Resolves `address`, which is HOST:PORT or [IPV6]:PORT. `token` may be empty. Errors:
  // INVALID_ARGUMENT, UNAVAILABLE.
  static absl::StatusOr<std::unique_ptr<OpenAiLoad>> Create(absl::string_view address,
                                                            absl::string_view token,
                                                            int connections);
  ~OpenAiLoad();

  // Sends the bodies and returns the answers in the same order. An interrupt closes the
  // connections, so that unfinished requests end with an error.
  std::vector<OpenAiAnswer> Run(const std::vector<std::string>& bodies, Interrupt* interrupt);

 private:
  class Connection;
  OpenAiLoad();
  std::vector<std::unique_ptr<Connection>> connections_;
};

}  // namespace tessera::client
