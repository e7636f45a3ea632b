// Moves the wall clock of the test's process, as an operator or NTP moves a machine's.
//
// Every reader of CLOCK_REALTIME in the binary sees the new time, the C++ library and gRPC too.
// absl::Now() follows within two seconds, because it counts cycles between readings. The kernel's
// clock, by which threads sleep, and the steady clocks do not change.
#pragma once

#include "absl/time/time.h"

namespace tessera::testing {

// The wall clock is ahead by `by` as long as this object lives. Only one may live at a time.
class WallClockJump {
 public:
  explicit WallClockJump(absl::Duration by);
  ~WallClockJump();
  WallClockJump(const WallClockJump&) = delete;
  WallClockJump& operator=(const WallClockJump&) = delete;
};

}  // namespace tessera::testing
