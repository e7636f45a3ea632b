// A fixed set of threads with a bounded queue. It runs work that would block gRPC's few threads:
// decoding images, tokenizing, writing to streams.
//
// Threads: safe. Lifetime: the destructor runs every accepted task and then joins. So a task must
// notice by itself that its result is no longer wanted.
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

  // `name` names the threads for top and gdb; at most 15 characters are kept.
  WorkerPool(const std::string& name, int threads, size_t max_queue);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // Returns false if `max_queue` tasks are waiting already or the pool is ending.
  bool TrySubmit(std::function<void()> task);
  // Does what the destructor does, while other threads may still call TrySubmit. Threads: one.
  void Stop();
  // Returns the number of tasks that no thread has started.
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
