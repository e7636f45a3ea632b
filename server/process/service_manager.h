// What the service manager that started the daemon is told: ready, stopping, still alive.
//
// systemd's protocol (sd_notify(3)): one datagram of NAME=VALUE lines to the Unix socket that
// $NOTIFY_SOCKET names. Our own, because libsystemd would be a dependency for one sendto. Threads:
// immutable, safe.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace tessera {

class ServiceManager {
 public:
  // By this process's environment: NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID.
  static ServiceManager FromEnvironment();

  // `socket`: a path, or @name in the abstract namespace; empty: nobody listens, and Tell does
  // nothing. `watchdog`: the manager ends a daemon that says nothing for this long.
  explicit ServiceManager(std::string socket, absl::Duration watchdog = absl::InfiniteDuration());

  // Does not block. An error when there is a socket and it could not be told.
  absl::Status Tell(absl::string_view lines) const;
  // How often "WATCHDOG=1" is to be told: twice as often as needed. InfiniteDuration: never.
  absl::Duration alive_interval() const { return alive_interval_; }

 private:
  std::string socket_;
  absl::Duration alive_interval_;
};

}  // namespace tessera
