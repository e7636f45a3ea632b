// A tesserad stand-in for client tests: real gRPC over loopback, answers from a script.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/base.h"
#include "grpcpp/server.h"
#include "tessera/v1/control.grpc.pb.h"
#include "tessera/v1/inference.grpc.pb.h"
#include "tessera/v1/tokenizer.grpc.pb.h"

namespace tessera::client {

struct Reply {
  std::vector<std::string> deltas;  // texts, in order
  int tokens_per_delta = 1;
  absl::Duration first_delay, delta_delay;  // before the first delta, between deltas
  grpc::Status status;                      // of the stream; errors come after the deltas
  bool accepted = true, finished = true;    // false: the event is left out
  int gather = 0;               // do not start before so many calls have been in flight together
  bool hang = false;            // after the deltas, until the client cancels
  v1::Explanation explanation;  // left out if empty
  v1::Usage usage;              // prompt_tokens and output_tokens are filled if 0
};

// An answer of one delta a character.
Reply Answer(const std::string& text);
// A status that carries google.rpc details.
grpc::Status DetailedStatus(grpc::StatusCode code, const std::string& message,
                            const std::vector<const google::protobuf::Message*>& details);
// UNAVAILABLE with RetryInfo.
grpc::Status RetryAfter(absl::Duration delay);

// Threads: safe. The handler runs on the server's threads; `call` counts from 0.
class FakeServer {
 public:
  using Handler = std::function<Reply(const v1::GenerateRequest& request, int call)>;

  explicit FakeServer(Handler handler);
  ~FakeServer();

  const std::string& address() const { return address_; }
  std::shared_ptr<grpc::Channel> channel() const;
  std::vector<v1::GenerateRequest> requests();
  // Of calls whose end the client could not know yet.
  int most_in_flight();
  // Calls that the server saw being cancelled.
  int cancelled();

 private:
  class Inference;
  class Tokenizer;
  class Control;
  std::unique_ptr<Inference> inference_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Control> control_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

// The text of all text parts, with "[N]" for an image of N bytes.
std::string Flatten(const google::protobuf::RepeatedPtrField<v1::ContentPart>& parts);

}  // namespace tessera::client
