// How a front end writes the answers of one request: gRPC messages, or HTTP whole or as
// server-sent events.
//
// ActiveRequest decides when to write; a writer only composes and sends. Threads: see each method.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/request/request.h"

namespace tessera {

class ActiveRequest;

// One prompt of a request, as the engine accepted it.
struct AcceptedPrompt {
  int prompt_tokens = 0;  // text and image tokens together
  int image_tokens = 0;
  int queue_position = 0;  // requests ahead of it
  std::string policy;
  bool logprobs = false;
};

// The labels of a request that has ended, for the front end's counters and the log.
struct EndLabels {
  const char* log_message;  // "generate", "http"
  const char* route;        // the RPC's name or the HTTP path
  int status;               // as the client sees it
};

class ResponseWriter {
 public:
  virtual ~ResponseWriter() = default;

  // --- Called under the request's lock. They compose, and call nothing back.
  // Comes first. Answers are numbered prompt by prompt, `answers_each` for each.
  virtual void Accept(const std::vector<AcceptedPrompt>& prompts, int answers_each) = 0;
  // Adds an event of an answer. Returns true if it must be written before another is added. The
  // event's status is OK.
  virtual bool Add(int answer, Event event) = 0;
  // Returns true if something composed waits to be written.
  virtual bool HasPending() const = 0;
  // Breaks the connection off: the pending write or finish fails.
  virtual void Break() = 0;

  // --- Called without the lock, one at a time.
  // Starts to write what is composed. ActiveRequest::OnWritten follows.
  virtual void Write() = 0;
  // Ends the call: with what is composed and the end of the answers if `status` is OK, else with
  // the error. ActiveRequest::OnDone follows, possibly before it returns.
  virtual void Finish(const absl::Status& status) = 0;

  // Counts the end of the call in the front end's metric. Called once, last.
  virtual EndLabels CountEnd(const absl::Status& status) = 0;

 protected:
  // The request whose answers these are. It owns the writer.
  ActiveRequest& request() const { return *request_; }

 private:
  friend class ActiveRequest;
  ActiveRequest* request_ = nullptr;
};

}  // namespace tessera
