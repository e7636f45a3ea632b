#include "server/process/shutdown_watchdog.h"

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

TEST(ShutdownWatchdogTest, AnOverdueDrainEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        ShutdownWatchdog watchdog;
        watchdog.Arm(absl::Milliseconds(20));
        absl::SleepFor(absl::Seconds(20));
      },
      "the drain does not end");
}

TEST(ShutdownWatchdogTest, ADrainInTimeIsLeftAlone) {
  {
    ShutdownWatchdog watchdog;
    watchdog.Arm(absl::Milliseconds(50));
  }
  {
    ShutdownWatchdog watchdog;  // never armed
    absl::SleepFor(absl::Milliseconds(100));
  }
  { ShutdownWatchdog().Arm(absl::InfiniteDuration()); }
  absl::SleepFor(absl::Milliseconds(100));
}

}  // namespace
}  // namespace tessera
