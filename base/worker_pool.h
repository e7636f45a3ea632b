// A fixed set of threads with a bounded queue, for work that must not run on gRPC's few threads:
// decoding pictures, tokenising, writing to streams.
//
// Threads: safe. Lifetime: the destructor runs what was accepted, then joins; a task must therefore
// notice by itself that nobody waits for it any more.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

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
  // Plain std types: a condition variable waits on a std::unique_lock.
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;  // guarded by mutex_
  bool ending_ = false;                      // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace tessera
