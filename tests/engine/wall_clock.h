// Sets the wall clock of this process, as an operator or NTP sets a machine's: every reader of
// CLOCK_REALTIME in the test's binary sees it, the C++ library and gRPC included; absl::Now(),
// which counts cycles in between, within two seconds. The kernel's own clock, by which threads
// sleep, stays. Clocks that cannot be set are as ever.
#pragma once

#include "absl/time/time.h"

namespace tessera::testing {

// While it lives, the wall clock is `by` ahead of the true one. One at a time.
class WallClockJump {
 public:
  explicit WallClockJump(absl::Duration by);
  ~WallClockJump();
  WallClockJump(const WallClockJump&) = delete;
  WallClockJump& operator=(const WallClockJump&) = delete;
};

}  // namespace tessera::testing
