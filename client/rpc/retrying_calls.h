// Retries Generate calls that fail with UNAVAILABLE or RESOURCE_EXHAUSTED, with exponential backoff
// and never before the time in the server's RetryInfo. gRPC's own retries ignore RetryInfo.
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
  absl::Duration limit = absl::Seconds(30);  // longest pause, unless the server asks for more
  absl::Duration timeout;                    // deadline of one attempt; 0 is none

  void Register(Options* options);
};

// Returns whether a retry may succeed. The reason LIMIT_EXCEEDED is final whatever the code,
// because the request can never keep that limit.
bool Retryable(const RpcError& error);

// Returns the pause after failed attempt number `attempt` (1, 2, ...): the larger of
// min(initial * 2^(attempt-1), limit) * jitter and asked * (0.5 + jitter), for a `jitter` in [0.5,
// 1).
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
  // Blocks for the next call that has ended for good. Returns nullopt at `until`, after Wake, and
  // sometimes in between, such as after a pause. So call it again while in_flight() > 0.
  std::optional<FinalResult> Next(Clock::time_point until = Clock::time_point::max());
  // Returns the number of calls that have not ended for good, including pausing ones.
  int in_flight() const { return static_cast<int>(calls_.size()); }
  // Returns the number of calls that wait for their next attempt.
  int pausing() const { return static_cast<int>(pausing_.size()); }

  // Cancels running calls and gives up pausing ones. Next still returns each of them.
  void Stop();
  bool stopped() const { return stopped_; }
  void Wake() { queue_.Wake(); }

 private:
  struct State {
    std::shared_ptr<const v1::GenerateRequest> request;
    int attempts = 0;
    CallResult last;  // result of the latest attempt, while pausing
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
