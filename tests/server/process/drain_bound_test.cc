#include "server/process/drain_bound.h"

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

TEST(DrainBoundTest, AnOverdueDrainEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        DrainBound bound;
        bound.Begin(absl::Milliseconds(20));
        absl::SleepFor(absl::Seconds(20));
      },
      "the drain does not end");
}

TEST(DrainBoundTest, ADrainInTimeIsLeftAlone) {
  {
    DrainBound bound;
    bound.Begin(absl::Milliseconds(50));
  }
  {
    DrainBound bound;  // nobody drains
    absl::SleepFor(absl::Milliseconds(100));
  }
  { DrainBound().Begin(absl::InfiniteDuration()); }
  absl::SleepFor(absl::Milliseconds(100));
}

}  // namespace
}  // namespace tessera
