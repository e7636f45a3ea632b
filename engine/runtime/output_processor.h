// Turns a step's outputs into events for the readers: text, log-probabilities, ends, usage.
//
// Events wait here until Flush: telling a reader takes microseconds, which the engine spends while
// the device works. Events of one request keep their order. Threads: the engine's thread.
#pragma once

#include <vector>

#include "absl/time/time.h"
#include "engine/model/llava.h"
#include "engine/request/observer.h"
#include "engine/request/request.h"
#include "engine/runtime/in_flight_step.h"
#include "engine/runtime/live_requests.h"

namespace tessera {

class OutputProcessor {
 public:
  // Both outlive this.
  OutputProcessor(const LiveRequests* requests, Observer* observer)
      : requests_(requests), observer_(observer) {}

  // A request that ended with a step, and its last event.
  struct Ended {
    RequestState* request;
    Event last;
  };
  // Appends the step's sampled tokens to their requests and keeps the events for Flush. Returns the
  // requests that ended; their last events are not kept.
  std::vector<Ended> Process(const InFlightStep& step, const LlavaModel::Output& output);
  // Lets the next step run tokens that this one samples before they are known: each sequence gets a
  // placeholder, and one whose next token is its last is blocked.
  void MarkPending(const InFlightStep& step);
  // Puts the kept events into their requests' output queues.
  void Flush();
  // Completes a request's last event: usage, times and the explanation if it was asked for.
  void Complete(const RequestState& request, const Arena& arena, absl::Time now, Event* last) const;

 private:
  struct Kept {
    RequestState* request;
    Event event;
    absl::Time sampled;
  };
  void Append(RequestState& request, int32_t token, const LogprobAt* logprobs,
              std::vector<Ended>* ended);

  const LiveRequests* requests_;
  Observer* observer_;
  std::vector<Kept> kept_;
};

}  // namespace tessera
