// The clock of deadlines and durations. It never jumps; the wall clock does, by hours, when an
// operator or NTP sets it or a virtual machine wakes, and then no request may expire, live on or
// stall, no client be given up, no tenant's pace change and no measured time be wrong.
//
// Its moments are absl::Time, counted from an arbitrary origin: they can be compared and
// subtracted, but are no dates. absl::Now() remains for what is one, such as `created`.
// Threads: safe.
#pragma once

#include <chrono>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace tessera {

inline absl::Time SteadyNow() {
  return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

// A date, such as gRPC's deadlines, as a moment of the steady clock, and back, by what the wall
// clock says now. Not absl::Now(), which follows a wall clock that was set two seconds later.
inline absl::Time ToSteady(std::chrono::system_clock::time_point date) {
  return SteadyNow() + absl::FromChrono(date - std::chrono::system_clock::now());
}
inline std::chrono::system_clock::time_point ToDate(absl::Time steady) {
  return std::chrono::system_clock::now() + absl::ToChronoNanoseconds(steady - SteadyNow());
}

}  // namespace tessera
