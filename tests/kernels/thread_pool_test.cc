#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <chrono>
#include <ctime>
#include <numeric>

namespace tessera {
namespace {

TEST(ThreadPoolTest, EveryTaskOnceForManyJobs) {
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (int job = 0; job < 2000; ++job) {
      const int64_t tasks = job % 37;
      std::vector<int> runs(tasks, 0);  // one task, one writer: a second run would race or show
      std::vector<std::atomic<int>> busy(threads);
      pool.ParallelFor(tasks, [&](int64_t task, int worker) {
        ASSERT_LT(worker, threads);
        EXPECT_EQ(busy[worker].fetch_add(1), 0);  // a worker's scratch has one user
        ++runs[task];
        busy[worker].fetch_sub(1);
      });
      EXPECT_EQ(std::accumulate(runs.begin(), runs.end(), 0), tasks);
      for (int n : runs) EXPECT_EQ(n, 1);
    }
  }
}

TEST(ThreadPoolTest, WakesSleepersAndUsesThem) {
  ThreadPool pool(2);
  for (int job = 0; job < 5; ++job) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));  // long enough to fall asleep
    // Each of two tasks waits for the other, so they only finish if two threads run them.
    std::atomic<int> arrived{0};
    pool.ParallelFor(2, [&](int64_t, int) {
      arrived.fetch_add(1);
      while (arrived.load() < 2) std::this_thread::yield();
    });
    EXPECT_EQ(arrived.load(), 2);
  }
}

TEST(ThreadPoolTest, IdleThreadsUseNoProcessorTime) {
  ThreadPool pool(4);
  pool.ParallelFor(8, [](int64_t, int) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const std::clock_t before = std::clock();  // of the whole process
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const double used = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  EXPECT_LT(used, 0.05);  // three spinning threads would use 0.3, on one core 0.1
}

TEST(ThreadPoolTest, StopsWhileIdleOrUnused) {
  for (int i = 0; i < 50; ++i) {
    ThreadPool pool(3);
    if (i % 2) pool.ParallelFor(3, [](int64_t, int) {});
  }
}

}  // namespace
}  // namespace tessera
