// Runs many Generate calls at a time without a thread for each. gRPC's callback threads run the
// calls; the starting thread takes the finished results.
//
// Threads: call Start, Next and the destructor from one thread; Cancel, CancelAll and Wake from
// any. Ownership: results are values; the channel is shared.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "client/rpc/rpc_error.h"
#include "tessera/v1/inference.grpc.pb.h"

namespace tessera::client {

using Clock = std::chrono::steady_clock;

struct CallResult {
  // When a delta arrived, and how many tokens it brought: 0 for text of tokens counted earlier.
  struct Mark {
    Clock::time_point at;
    int tokens = 0;
  };

  int64_t tag = 0;
  // OK only if the stream was complete: one `accepted`, deltas, one `finished`.
  RpcError error;
  std::string text;
  v1::Accepted accepted;
  v1::Finished finished;
  Clock::time_point sent, done;
  std::vector<Mark> marks;

  bool ok() const { return error.ok(); }
};

class CallQueue {
 public:
  // Called on a gRPC thread with the text of each delta, in order within a call. Must not block.
  using OnDelta = std::function<void(int64_t tag, absl::string_view text)>;

  explicit CallQueue(std::shared_ptr<grpc::Channel> channel, OnDelta on_delta = nullptr);
  ~CallQueue();  // cancels running calls and waits for their end
  CallQueue(const CallQueue&) = delete;
  CallQueue& operator=(const CallQueue&) = delete;

  // Starts a call. A `timeout` of 0 sets no deadline. `read_pause` is the wait before each message
  // after the first, to act as a slow client. Keeps the request until the call has ended.
  void Start(int64_t tag, std::shared_ptr<const v1::GenerateRequest> request,
             absl::Duration timeout, absl::Duration read_pause = absl::ZeroDuration());
  // Blocks for the next finished call, in order of finishing. Returns nullopt at `until` or after
  // Wake.
  std::optional<CallResult> Next(Clock::time_point until);
  // Returns the number of calls that were started and not yet returned by Next.
  int in_flight() const { return in_flight_; }

  // Cancels the running calls of this tag; they end with CANCELLED soon. Does nothing if there is
  // none.
  void Cancel(int64_t tag);
  // Cancels all running calls; they end with CANCELLED soon.
  void CancelAll();
  // Makes the current or the next call of Next return at once.
  void Wake();

 private:
  class Call;
  void Forget(Call* call);
  void Finish(CallResult result);

  const std::unique_ptr<v1::Inference::Stub> stub_;
  const OnDelta on_delta_;
  int in_flight_ = 0;  // used by the starting thread only

  Mutex mutex_;
  CondVar changed_;
  std::map<Call*, std::shared_ptr<grpc::ClientContext>> running_ TESSERA_GUARDED_BY(mutex_);
  int unfinished_ TESSERA_GUARDED_BY(mutex_) = 0;  // started and not yet in finished_
  std::deque<CallResult> finished_ TESSERA_GUARDED_BY(mutex_);
  bool woken_ TESSERA_GUARDED_BY(mutex_) = false;
};

}  // namespace tessera::client
