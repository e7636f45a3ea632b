// A fixed set of threads with a bounded queue, for work that must not run on gRPC's few threads:
// decoding pictures, tokenising, writing to streams.
//
// Threads: safe. Lifetime: the destructor runs what was accepted, then joins; a task must therefore
// notice by itself that nobody waits for it any more.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace tessera {

class WorkerPool {
 public:
  // For callers that bound the number of tasks themselves.
  static constexpr size_t kUnbounded = ~size_t{0};

  // `name` (at most 15 characters are kept) names the threads for top and gdb.
  WorkerPool(const std::string& name, int threads, size_t max_queue);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // False when `max_queue` tasks wait already, or the pool is ending.
  bool TrySubmit(std::function<void()> task);
  // What the destructor does, for a pool that others may still try to use. From one thread.
  void Stop();
  size_t waiting() const;

 private:
  void Work();

  const size_t max_queue_;
  mutable Mutex mutex_;
  CondVar wake_;
  std::deque<std::function<void()>> queue_ TESSERA_GUARDED_BY(mutex_);
  bool ending_ TESSERA_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace tessera
