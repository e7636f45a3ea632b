#include "engine/request/output_queue.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1000);
absl::Time At(int seconds) { return kStart + absl::Seconds(seconds); }

Event Delta(int id) {
  Event event;
  event.text = std::to_string(id) + " ";
  event.ids = {id};
  event.logprobs = {{id, -0.5f, {{id, -0.5f}}}};
  return event;
}
Event Done(FinishReason reason) {
  Event event;
  event.done = true;
  event.reason = reason;
  return event;
}

TEST(OutputQueue, KeepsOrder) {
  OutputQueue box(nullptr);
  EXPECT_FALSE(box.Take(At(0)).has_value());
  for (int i = 0; i < 5; ++i) box.Put(Delta(i), At(0));
  box.Put(Done(FinishReason::kStop), At(0));
  for (int i = 0; i < 5; ++i) {
    const auto event = box.Take(At(1));
    ASSERT_TRUE(event.has_value());
    EXPECT_THAT(event->ids, testing::ElementsAre(i));
    EXPECT_FALSE(event->done);
  }
  EXPECT_EQ(box.Take(At(1))->reason, FinishReason::kStop);
  EXPECT_FALSE(box.Take(At(1)).has_value());
}

TEST(OutputQueue, AFullBoxMergesDeltasIntoTheLast) {
  OutputQueue box(nullptr);
  constexpr int kDeltas = 200, kMax = static_cast<int>(OutputQueue::kMaxEvents);
  for (int i = 0; i < kDeltas; ++i) box.Put(Delta(i), At(0));
  box.Put(Done(FinishReason::kLength), At(0));
  std::string text, expected;
  std::vector<int32_t> ids;
  int events = 0;
  for (auto event = box.Take(At(0)); event && !event->done; event = box.Take(At(0)), ++events) {
    text += event->text;
    ASSERT_EQ(event->ids.size(), event->logprobs.size());
    ASSERT_EQ(event->ids.size(), events < kMax - 1 ? 1u : 1u + kDeltas - kMax);
    for (size_t i = 0; i < event->ids.size(); ++i) {
      ids.push_back(event->ids[i]);
      EXPECT_EQ(event->logprobs[i].id, event->ids[i]);
      EXPECT_THAT(event->logprobs[i].top,
                  testing::ElementsAre(testing::Pair(event->ids[i], -0.5f)));
    }
  }
  EXPECT_EQ(events, kMax);
  for (int i = 0; i < kDeltas; ++i) {
    ASSERT_EQ(ids[i], i);
    expected += std::to_string(i) + " ";
  }
  EXPECT_EQ(text, expected);
}

TEST(OutputQueueDeath, NothingFollowsDone) {
  OutputQueue box(nullptr);
  box.Put(Done(FinishReason::kStop), At(0));
  EXPECT_DEATH(box.Put(Delta(1), At(0)), "check failed");
  box.Take(At(0));
  EXPECT_DEATH(box.Put(Done(FinishReason::kStop), At(0)), "check failed");
}

TEST(OutputQueue, WaitsFromThePutOrFromTheTakeBefore) {
  OutputQueue box(nullptr);
  EXPECT_EQ(box.WaitingFor(At(100)), absl::ZeroDuration());
  box.Put(Delta(0), At(10));
  box.Put(Delta(1), At(15));
  EXPECT_EQ(box.WaitingFor(At(25)), absl::Seconds(15));
  EXPECT_EQ(box.WaitingFor(At(5)), absl::ZeroDuration());  // a clock that stepped back
  box.Take(At(30));
  EXPECT_EQ(box.WaitingFor(At(31)), absl::Seconds(1));  // slow, but alive
  box.Take(At(32));
  EXPECT_EQ(box.WaitingFor(At(1000)), absl::ZeroDuration());
  EXPECT_FALSE(box.Take(At(1001)).has_value());
  box.Put(Delta(2), At(2000));
  EXPECT_EQ(box.WaitingFor(At(2003)), absl::Seconds(3));
}

TEST(OutputQueue, NotifiesOnceForEachPutIntoAnEmptyBox) {
  int calls = 0;
  OutputQueue* self = nullptr;
  OutputQueue box([&] {
    ++calls;
    self->WaitingFor(At(0));  // would deadlock under the lock
  });
  self = &box;
  box.Put(Delta(0), At(0));
  box.Put(Delta(1), At(0));
  EXPECT_EQ(calls, 1);
  box.Take(At(0));
  box.Put(Delta(2), At(0));  // not empty
  EXPECT_EQ(calls, 1);
  while (box.Take(At(0))) {
  }
  EXPECT_EQ(calls, 1);
  box.Put(Delta(3), At(0));
  EXPECT_EQ(calls, 2);
}

TEST(OutputQueue, CancelIsSeen) {
  OutputQueue box(nullptr);
  EXPECT_FALSE(box.cancelled());
  box.Cancel();
  EXPECT_TRUE(box.cancelled());
}

// An engine thread against a reader that sleeps until it is notified: a lost notification hangs, a
// race shows under the thread sanitizer.
TEST(OutputQueue, EngineAndReaderThreads) {
  constexpr int kBoxes = 20, kEvents = 3000;
  for (int round = 0; round < kBoxes; ++round) {
    std::mutex mutex;
    std::condition_variable woken;
    bool notified = false;
    OutputQueue box([&] {
      std::lock_guard<std::mutex> lock(mutex);
      notified = true;
      woken.notify_one();
    });
    std::atomic<int> stop_at{kEvents};
    std::thread reader([&] {
      int next = 0;
      for (;;) {
        std::unique_lock<std::mutex> lock(mutex);
        woken.wait(lock, [&] { return notified; });
        notified = false;
        lock.unlock();
        while (auto event = box.Take(SteadyNow())) {
          for (int32_t id : event->ids) ASSERT_EQ(id, next++);
          if (round % 2 == 1 && next > kEvents / 2) box.Cancel();
          if (event->done) {
            EXPECT_EQ(next, stop_at.load());
            return;
          }
        }
      }
    });
    int put = 0;
    for (; put < kEvents && !box.cancelled(); ++put) {
      box.Put(Delta(put), SteadyNow());
      EXPECT_LT(box.WaitingFor(SteadyNow()), absl::Minutes(1));
    }
    stop_at = put;
    box.Put(Done(FinishReason::kLength), SteadyNow());
    reader.join();
  }
}

}  // namespace
}  // namespace tessera
