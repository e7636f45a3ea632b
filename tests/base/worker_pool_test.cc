#include "base/worker_pool.h"

#include <atomic>
#include <future>

#include "gtest/gtest.h"

namespace tessera {
namespace {

TEST(WorkerPoolTest, RunsEverythingItAccepted) {
  std::atomic<int> ran{0};
  {
    WorkerPool pool("test", 3, WorkerPool::kUnbounded);
    for (int i = 0; i < 1000; ++i) ASSERT_TRUE(pool.TrySubmit([&ran] { ++ran; }));
  }
  EXPECT_EQ(ran, 1000);
}

TEST(WorkerPoolTest, RefusesBeyondItsBound) {
  WorkerPool pool("test", 1, 2);
  std::promise<void> started, release;
  ASSERT_TRUE(pool.TrySubmit([&] {
    started.set_value();
    release.get_future().wait();
  }));
  started.get_future().wait();  // the thread is busy and the queue is empty
  std::atomic<int> ran{0};
  EXPECT_TRUE(pool.TrySubmit([&ran] { ++ran; }));
  EXPECT_TRUE(pool.TrySubmit([&ran] { ++ran; }));
  EXPECT_EQ(pool.waiting(), 2u);
  EXPECT_FALSE(pool.TrySubmit([&ran] { ++ran; }));
  release.set_value();
  while (pool.waiting() > 0) std::this_thread::yield();
  EXPECT_TRUE(pool.TrySubmit([] {}));
}

TEST(WorkerPoolTest, RefusesOnceItIsStopped) {
  std::atomic<int> ran{0};
  WorkerPool pool("test", 2, WorkerPool::kUnbounded);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(pool.TrySubmit([&ran] { ++ran; }));
  pool.Stop();
  EXPECT_EQ(ran, 100);
  EXPECT_FALSE(pool.TrySubmit([&ran] { ++ran; }));
  pool.Stop();
  EXPECT_EQ(ran, 100);
}

TEST(WorkerPoolTest, ReleasesWhatTasksHold) {
  auto held = std::make_shared<int>(1);
  std::weak_ptr<int> weak = held;
  WorkerPool pool("test", 1, 8);
  std::promise<void> done;
  ASSERT_TRUE(pool.TrySubmit([held = std::move(held)] {}));
  ASSERT_TRUE(pool.TrySubmit([&done] { done.set_value(); }));
  done.get_future().wait();
  EXPECT_TRUE(weak.expired());
}

}  // namespace
}  // namespace tessera
