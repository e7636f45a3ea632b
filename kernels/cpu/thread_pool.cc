#include "kernels/cpu/thread_pool.h"

#include <immintrin.h>

#include "base/base.h"

namespace tessera {
namespace {

constexpr uint64_t kOpen = 1;
constexpr uint64_t kJoined = 2;  // one joined worker
constexpr int kEpochShift = 20;
constexpr uint64_t kJoinedMask = (uint64_t{1} << kEpochShift) - 2;

// About 20 microseconds: longer than the gap between two ops of a step, shorter than a wake-up.
constexpr int kSpins = 500;
// After this many pauses the waiting caller yields its core, because a worker may need it.
constexpr int kSpinsBeforeYield = 2000;

}  // namespace

ThreadPool::ThreadPool(int threads) {
  TESSERA_CHECK(threads > 0 && threads < 1 << 16);
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { Work(i); });
}

ThreadPool::~ThreadPool() {
  {
    MutexLock lock(sleep_mutex_);
    stop_.store(true);
  }
  wake_.NotifyAll();
}

void ThreadPool::Run(int64_t tasks, Call call, const void* body) {
  call_ = call;
  body_ = body;
  tasks_ = tasks;
  next_task_.store(0, std::memory_order_relaxed);
  const uint64_t epoch = (state_.load(std::memory_order_relaxed) >> kEpochShift) + 1;
  // Sequentially consistent with `sleepers_`: either this thread sees the sleeper or the sleeper
  // sees the job.
  state_.store(epoch << kEpochShift | kOpen);
  if (sleepers_.load() > 0) {
    MutexLock lock(sleep_mutex_);
    wake_.NotifyAll();
  }
  TakeTasks(0);
  state_.fetch_and(~kOpen, std::memory_order_acq_rel);
  for (int spins = 0; state_.load(std::memory_order_acquire) & kJoinedMask; ++spins) {
    if (spins < kSpinsBeforeYield) {
      _mm_pause();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::TakeTasks(int worker) {
  for (;;) {
    const int64_t task = next_task_.fetch_add(1, std::memory_order_relaxed);
    if (task >= tasks_) return;
    call_(body_, task, worker);
  }
}

uint64_t ThreadPool::WaitForJob(uint64_t last_epoch) {
  const auto is_new = [&](uint64_t s) { return (s & kOpen) && s >> kEpochShift != last_epoch; };
  for (int spins = 0; spins < kSpins; ++spins) {
    const uint64_t s = state_.load(std::memory_order_acquire);
    if (is_new(s) || stop_.load(std::memory_order_relaxed)) return s;
    _mm_pause();
  }
  MutexLock lock(sleep_mutex_);
  sleepers_.fetch_add(1);
  while (!is_new(state_.load()) && !stop_.load()) wake_.Wait(sleep_mutex_);
  sleepers_.fetch_sub(1);
  return state_.load(std::memory_order_acquire);
}

void ThreadPool::Work(int worker) {
  uint64_t last_epoch = 0;
  for (;;) {
    uint64_t s = WaitForJob(last_epoch);
    if (stop_.load(std::memory_order_relaxed)) return;
    while ((s & kOpen) && !state_.compare_exchange_weak(s, s + kJoined, std::memory_order_acq_rel,
                                                        std::memory_order_acquire)) {
    }
    if (!(s & kOpen)) continue;  // closed before this worker joined
    last_epoch = s >> kEpochShift;
    TakeTasks(worker);
    state_.fetch_sub(kJoined, std::memory_order_release);
  }
}

}  // namespace tessera
