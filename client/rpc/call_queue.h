// Generate calls in flight without a thread for each: started from one thread, run by gRPC's
// callback threads, and handed back to the starting thread as finished results.
//
// Threads: Start, Next and the destructor from one thread; Cancel,
// CancelAll and Wake from any.
// Ownership: results are values; the stub's channel is shared.
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
  // When a delta arrived, and how many tokens it brought (0 for text that was held back earlier).
  struct Mark {
    Clock::time_point at;
    int tokens = 0;
  };

  int64_t tag = 0;
  // OK only if the stream ended properly: one `accepted`, deltas, one `finished`.
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
  // Called on a gRPC thread with each delta's text, in order for one call; must not block.
  using OnDelta = std::function<void(int64_t tag, absl::string_view text)>;

  explicit CallQueue(std::shared_ptr<grpc::Channel> channel, OnDelta on_delta = nullptr);
  ~CallQueue();  // cancels what runs and waits for it
  CallQueue(const CallQueue&) = delete;
  CallQueue& operator=(const CallQueue&) = delete;

  // `timeout` 0: no deadline. `read_pause`: how long to wait before each further message is read,
  // as a slow client does. The request is kept until the call is done.
  void Start(int64_t tag, std::shared_ptr<const v1::GenerateRequest> request,
             absl::Duration timeout, absl::Duration read_pause = absl::ZeroDuration());
  // The next finished call, in order of finishing; nullopt at `until` or after Wake.
  std::optional<CallResult> Next(Clock::time_point until);
  // Started and not yet returned by Next.
  int in_flight() const { return in_flight_; }

  // Running calls of this tag end with CANCELLED soon; others have ended before.
  void Cancel(int64_t tag);
  // Running calls end with CANCELLED soon.
  void CancelAll();
  // Makes the current or the next Next return at once.
  void Wake();

 private:
  class Call;
  void Forget(Call* call);
  void Finish(CallResult result);

  const std::unique_ptr<v1::Inference::Stub> stub_;
  const OnDelta on_delta_;
  int in_flight_ = 0;  // of the starting thread alone

  Mutex mutex_;
  CondVar changed_;
  std::map<Call*, std::shared_ptr<grpc::ClientContext>> running_ TESSERA_GUARDED_BY(mutex_);
  int unfinished_ TESSERA_GUARDED_BY(mutex_) = 0;  // started, and not yet in finished_
  std::deque<CallResult> finished_ TESSERA_GUARDED_BY(mutex_);
  bool woken_ TESSERA_GUARDED_BY(mutex_) = false;
};

}  // namespace tessera::client
