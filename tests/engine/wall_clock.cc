#include "tests/engine/wall_clock.h"

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

namespace {
std::atomic<int64_t> ahead_seconds{0};
}  // namespace

// The binary's definition takes precedence over the C library's, for shared libraries too.
extern "C" int clock_gettime(clockid_t clock, timespec* now) noexcept {
  const auto result = static_cast<int>(syscall(SYS_clock_gettime, clock, now));
  if (result == 0 && clock == CLOCK_REALTIME) now->tv_sec += ahead_seconds.load();
  return result;
}

namespace tessera::testing {

WallClockJump::WallClockJump(absl::Duration by) { ahead_seconds = absl::ToInt64Seconds(by); }
WallClockJump::~WallClockJump() { ahead_seconds = 0; }

}  // namespace tessera::testing
