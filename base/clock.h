// The clock of deadlines and durations.
//
// The wall clock jumps by hours when an operator or NTP sets it, or when a virtual machine wakes.
// Deadlines, rate limits and measured times must not follow it, so they use the steady clock.
//
// Its moments are absl::Time values with an arbitrary origin: compare and subtract them, but never
// show them as dates. Use absl::Now() for dates such as `created`. Threads: safe.
#pragma once

#include <chrono>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace tessera {

inline absl::Time SteadyNow() {
  return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

// Converts a date, such as a gRPC deadline, to a moment of the steady clock and back, using what
// the wall clock says now. Uses std::chrono, because absl::Now() may lag two seconds behind a wall
// clock that was set.
inline absl::Time ToSteady(std::chrono::system_clock::time_point date) {
  return SteadyNow() + absl::FromChrono(date - std::chrono::system_clock::now());
}
inline std::chrono::system_clock::time_point ToDate(absl::Time steady) {
  return std::chrono::system_clock::now() + absl::ToChronoNanoseconds(steady - SteadyNow());
}

}  // namespace tessera
