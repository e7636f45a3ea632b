// Sends requests to a server's OpenAI port as RunLoad does over gRPC, for `tessera bench
// --compare_http`: closed loop, a thread and a kept connection for each request in flight.
//
// Plain HTTP/1.1, chat completions as event streams. Bodies are made before the clock starts, as
// gRPC's messages are. Threads: one at a time; Run's own threads end with it.
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

// The same request as a chat completion's body, streamed and with usage. REQUIRES: `content` alone,
// of texts and pictures as bytes; of the other fields those that Workload sets.
std::string ToOpenAiBody(const v1::GenerateRequest& request);

struct OpenAiAnswer {
  std::string error;  // empty: a whole answer; the fields below mean nothing otherwise
  Clock::time_point sent, first, done;  // first: when its first event was read
  int64_t prompt_tokens = 0, output_tokens = 0;
};

// What a whole event stream holds; times are left out.
OpenAiAnswer ParseOpenAiStream(absl::string_view events);

class OpenAiLoad {
 public:
  // `address`: HOST:PORT or [IPV6]:PORT; resolved here: INVALID_ARGUMENT, UNAVAILABLE. `token` may
  // be empty.
  static absl::StatusOr<std::unique_ptr<OpenAiLoad>> Create(absl::string_view address,
                                                            absl::string_view token,
                                                            int connections);
  ~OpenAiLoad();

  // Answers in the order of `bodies`. An interrupt closes the connections: what has not ended ends
  // with an error.
  std::vector<OpenAiAnswer> Run(const std::vector<std::string>& bodies, Interrupt* interrupt);

 private:
  class Connection;
  OpenAiLoad();
  std::vector<std::unique_ptr<Connection>> connections_;
};

}  // namespace tessera::client
