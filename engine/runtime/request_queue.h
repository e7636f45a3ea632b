// The queue by which requests reach the engine's thread, and what other threads may know of it.
//
// Callers push requests, abort them by id and read the published load. The engine's thread polls.
// The queue also knows the ids of all live requests, so that an id is never used twice at a time.
// Threads: Push, Abort, FlushCaches, Stop, Load and HeartbeatAge are safe from any thread; the rest
// is the engine thread's.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "engine/request/observer.h"
#include "engine/request/output_queue.h"
#include "engine/request/request.h"

namespace tessera {

class RequestQueue {
 public:
  // `max_queue`: requests that may wait, here and in the scheduler.
  explicit RequestQueue(int max_queue);

  // --- any thread
  // RESOURCE_EXHAUSTED (full), UNAVAILABLE (stopped), ALREADY_EXISTS (the id is live). On success
  // `*position`, unless null, is the number of requests that wait ahead.
  absl::Status Push(Request request, std::shared_ptr<OutputQueue> output_queue, int* position);
  bool Abort(const std::string& request_id);  // false: no such live request
  void FlushCaches();
  void Stop();
  EngineLoad Load() const;
  absl::Duration HeartbeatAge() const;  // since the engine's thread last polled

  // --- the engine's thread
  struct Incoming {
    Request request;
    std::shared_ptr<OutputQueue> output_queue;
    absl::Time submitted;
  };
  struct Polled {
    std::vector<Incoming> requests;
    bool flush_caches = false;
    bool stop = false;
  };
  Polled Poll();
  void WaitForWork();  // returns at once if there is work, and after 100 ms in any case
  void Remove(const std::string& request_id);  // the request has ended
  void Publish(const EngineLoad& load);

 private:
  const int max_queue_;
  mutable Mutex mutex_;
  CondVar wake_;
  std::vector<Incoming> incoming_ TESSERA_GUARDED_BY(mutex_);
  std::unordered_map<std::string, std::shared_ptr<OutputQueue>> live_ TESSERA_GUARDED_BY(mutex_);
  bool flush_ TESSERA_GUARDED_BY(mutex_) = false;
  bool stopping_ TESSERA_GUARDED_BY(mutex_) = false;
  EngineLoad load_ TESSERA_GUARDED_BY(mutex_);
  std::atomic<int64_t> heartbeat_nanos_;
};

}  // namespace tessera
