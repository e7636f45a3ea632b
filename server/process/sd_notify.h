// Notifies the service manager that the daemon is ready, stopping or alive.
//
// This is systemd's protocol, sd_notify(3): one datagram of NAME=VALUE lines to the Unix socket
// that $NOTIFY_SOCKET names. It is our own code because libsystemd would be a dependency for one
// sendto. Threads: immutable, safe.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace tessera {

class SdNotify {
 public:
  // Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.
  static SdNotify FromEnvironment();

  // `socket`: a path, or @name in the abstract namespace; empty: Send does nothing. `watchdog`: the
  // manager ends a daemon that sends nothing for this long.
  explicit SdNotify(std::string socket, absl::Duration watchdog = absl::InfiniteDuration());

  // Sends lines without blocking. Returns an error if there is a socket and the send failed.
  absl::Status Send(absl::string_view lines) const;
  // Returns the interval for "WATCHDOG=1", half of the manager's; InfiniteDuration: never.
  absl::Duration watchdog_interval() const { return watchdog_interval_; }

 private:
  std::string socket_;
  absl::Duration watchdog_interval_;
};

}  // namespace tessera
