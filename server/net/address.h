// Where a listener listens: host:port (IPv6 in brackets) or unix:path.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

struct Address {
  std::string text;       // as given
  std::string unix_path;  // not empty: a Unix socket, host and port are unused
  std::string host;
  int port = 0;  // 0: the system picks a free one

  // Reachable from this machine only: a Unix socket, localhost, 127.0.0.0/8 or ::1.
  bool loopback() const;
};

// INVALID_ARGUMENT for anything but the two forms above.
absl::StatusOr<Address> ParseAddress(absl::string_view text);

// ALREADY_EXISTS if another process listens there now; other codes if it cannot be bound at all.
// gRPC itself would take over another process's Unix socket, and reports no reason for a TCP port.
absl::Status CheckAddressFree(const Address& address);

}  // namespace tessera
