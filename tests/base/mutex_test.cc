// Waits of the condition variable: what ends them, and what they say.
#include "base/mutex.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/clock.h"

namespace tessera {
namespace {

TEST(CondVar, WaitEndsWithANotification) {
  Mutex mutex;
  CondVar changed;
  int turns = 0;  // even: the main thread's turn
  std::thread other([&] {
    MutexLock lock(mutex);
    for (int i = 0; i < 1000; ++i) {
      while (turns % 2 == 0) changed.Wait(mutex);
      ++turns;
      changed.NotifyOne();
    }
  });
  {
    MutexLock lock(mutex);
    for (int i = 0; i < 1000; ++i) {
      while (turns % 2 == 1) changed.Wait(mutex);
      ++turns;
      changed.NotifyAll();
    }
  }
  other.join();
  EXPECT_EQ(turns, 2000);
}

TEST(CondVar, WaitUntilEndsAtItsDeadline) {
  Mutex mutex;
  CondVar never;
  const absl::Time deadline = SteadyNow() + absl::Milliseconds(20);
  MutexLock lock(mutex);
  while (never.WaitUntil(mutex, deadline)) {
  }
  EXPECT_GE(SteadyNow(), deadline);
  EXPECT_FALSE(never.WaitUntil(mutex, absl::InfinitePast()));
}

TEST(CondVar, WaitUntilWithoutAnEndIsWokenToo) {
  Mutex mutex;
  CondVar changed;
  bool raised = false;
  std::thread other([&] {
    MutexLock lock(mutex);
    raised = true;
    changed.NotifyOne();
  });
  {
    MutexLock lock(mutex);
    while (!raised) EXPECT_TRUE(changed.WaitUntil(mutex, absl::InfiniteFuture()));
  }
  other.join();
}

TEST(CondVar, WaitUnlocksTheMutex) {
  Mutex mutex;
  CondVar never;
  bool seen = false;
  MutexLock lock(mutex);
  std::thread other([&] {
    MutexLock inner(mutex);
    seen = true;
  });
  while (!seen) never.WaitUntil(mutex, SteadyNow() + absl::Milliseconds(1));
  other.join();
  EXPECT_TRUE(seen);
}

}  // namespace
}  // namespace tessera
