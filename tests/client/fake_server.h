// A fake tesserad for tests of the client: real gRPC over loopback, with scripted answers.
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
  grpc::Status status;                      // final status; an error comes after the deltas
  bool accepted = true, finished = true;    // false leaves out the event
  int gather = 0;               // wait until this many calls have been in flight together
  bool hang = false;            // after the deltas, wait until the client cancels
  v1::Explanation explanation;  // left out if empty
  v1::Usage usage;              // prompt_tokens and output_tokens are filled if 0
};

// Returns an answer with one delta for each character.
Reply Answer(const std::string& text);
// Returns a status with google.rpc details.
grpc::Status DetailedStatus(grpc::StatusCode code, const std::string& message,
                            const std::vector<const google::protobuf::Message*>& details);
// Returns UNAVAILABLE with RetryInfo.
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
  // Returns the largest number of calls in flight. A call counts until the client can see its end.
  int most_in_flight();
  // Returns the number of calls that the client cancelled.
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

// Joins the text parts, with "[N]" for an image of N bytes.
std::string Flatten(const google::protobuf::RepeatedPtrField<v1::ContentPart>& parts);

}  // namespace tessera::client
