// A fixed set of threads that share the loop of one op.
//
// ParallelFor hands out tasks one at a time, so a thread that is held up (a busy machine, a cold
// page) delays only the task it has. Idle threads spin for some microseconds, because the next op
// of a decode step follows at once, and then sleep: an idle daemon uses no CPU.
// Threads: one thread at a time calls ParallelFor; the body must not call it again.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace tessera {

class ThreadPool {
 public:
  // `threads` > 0 counts the calling thread: 1 starts none.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(task, worker) once for every task in [0, tasks), from up to threads() threads;
  // worker in [0, threads()) names the thread, for scratch memory. Returns when all are done.
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
  void Work(int worker);       // a worker thread's life
  void TakeTasks(int worker);  // runs tasks of the present job until none is left
  uint64_t WaitForJob(uint64_t last_epoch);

  // The job. Written by Run while no worker has joined, read by workers that have.
  Call call_ = nullptr;
  const void* body_ = nullptr;
  int64_t tasks_ = 0;
  alignas(64) std::atomic<int64_t> next_task_{0};

  // [epoch | joined workers | open]: a worker joins a job by raising the count while the job is
  // open; Run closes the job when no task is left and then waits only for those who joined, never
  // for a sleeper to wake.
  alignas(64) std::atomic<uint64_t> state_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};
  std::mutex sleep_mutex_;
  std::condition_variable wake_;
  std::vector<std::jthread> workers_;
};

}  // namespace tessera
