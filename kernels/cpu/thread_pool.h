// A fixed set of threads that share the loop of one op.
//
// ParallelFor hands out tasks one at a time, so a delayed thread (a busy machine, a cold page)
// delays only its own task. Idle threads spin for some microseconds, because the next op of a
// decode step usually follows at once, and then sleep. An idle daemon uses no CPU.
//
// Threads: one thread at a time calls ParallelFor. The body must not call it again.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace tessera {

class ThreadPool {
 public:
  // Starts `threads` - 1 threads; the calling thread is the last one.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(task, worker) once for every task in [0, tasks), from up to threads() threads, and
  // returns when all are done. `worker` in [0, threads()) identifies the thread, for scratch
  // memory.
  template <class Body>
  void ParallelFor(int64_t tasks, const Body& body) {
    if (tasks <= 1 || workers_.empty()) {
      for (int64_t t = 0; t < tasks; ++t) body(t, 0);
      return;
    }
    Run(
        tasks,
        [](const void* b, int64_t task, int worker) {
          (*static_cast<const Body*>(b))(task, worker);
        },
        &body);
  }

 private:
  using Call = void (*)(const void* body, int64_t task, int worker);

  void Run(int64_t tasks, Call call, const void* body);
  void Work(int worker);       // the body of a worker thread
  void TakeTasks(int worker);  // runs tasks of the current job until none is left
  uint64_t WaitForJob(uint64_t last_epoch);

  // The current job. Run writes it while no worker has joined; workers read it after they joined.
  Call call_ = nullptr;
  const void* body_ = nullptr;
  int64_t tasks_ = 0;
  alignas(64) std::atomic<int64_t> next_task_{0};

  // [epoch | joined workers | open]. A worker joins a job by incrementing the count while the job
  // is open. Run closes the job when no task is left and then waits only for the workers that
  // joined, never for a sleeping one to wake up.
  alignas(64) std::atomic<uint64_t> state_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};
  Mutex sleep_mutex_;
  CondVar wake_;
  std::vector<std::jthread> workers_;
};

}  // namespace tessera
