// Generate calls that are sent again when the server was only busy or away: UNAVAILABLE and
// RESOURCE_EXHAUSTED, with exponential backoff, never sooner than the server's RetryInfo says.
//
// Threads: as CallQueue; Stop and Wake from any thread.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <random>

#include "client/cli/options.h"
#include "client/rpc/call_queue.h"

namespace tessera::client {

struct RetryPolicy {
  int retries = 8;  // after the first attempt
  absl::Duration initial = absl::Milliseconds(250);
  absl::Duration limit = absl::Seconds(30);  // of one pause, unless the server asks for more
  absl::Duration timeout;                    // of one attempt; 0: none

  void Register(Options* options);
};

// A limit that the request can never keep (reason LIMIT_EXCEEDED) is final whatever its code.
bool Retryable(const RpcError& error);

// The pause after failed attempt number `attempt` (1, 2, ...): initial * 2^(attempt-1), at most
// limit, times `jitter` from [0.5, 1); at least `asked` and up to half of it more.
absl::Duration Backoff(const RetryPolicy& policy, int attempt, double jitter,
                       std::optional<absl::Duration> asked);

struct FinalResult {
  CallResult call;
  int attempts = 0;
};

class RetryingCalls {
 public:
  RetryingCalls(std::shared_ptr<grpc::Channel> channel, RetryPolicy policy);

  // REQUIRES: no call of this tag is in flight.
  void Start(int64_t tag, v1::GenerateRequest request);
  // The next call that is over for good. nullopt at `until` and after Wake, and it may come at any
  // other time (a pause ended): call again while in_flight() > 0.
  std::optional<FinalResult> Next(Clock::time_point until = Clock::time_point::max());
  // Started and not over, pauses between attempts included.
  int in_flight() const { return static_cast<int>(calls_.size()); }
  // Of those: waiting to be sent again.
  int pausing() const { return static_cast<int>(pausing_.size()); }

  // Cancels running calls and gives up those that pause; each still comes back from Next.
  void Stop();
  bool stopped() const { return stopped_; }
  void Wake() { queue_.Wake(); }

 private:
  struct State {
    std::shared_ptr<const v1::GenerateRequest> request;
    int attempts = 0;
    CallResult last;  // of the latest attempt, while pausing
  };
  void Attempt(int64_t tag, State* state);
  FinalResult Finish(int64_t tag, CallResult call);

  const RetryPolicy policy_;
  std::mt19937_64 random_{std::random_device{}()};
  std::map<int64_t, State> calls_;
  std::multimap<Clock::time_point, int64_t> pausing_;  // when to try again -> tag
  std::atomic<bool> stopped_ = false;
  CallQueue queue_;
};

}  // namespace tessera::client
