// The address of a listener: host:port (IPv6 in brackets) or unix:path.
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

  // Returns true if only this machine can reach it: a Unix socket, localhost, 127.0.0.0/8 or ::1.
  bool loopback() const;
};

// Returns INVALID_ARGUMENT for anything but the two forms above.
absl::StatusOr<Address> ParseAddress(absl::string_view text);

// Returns ALREADY_EXISTS if another process listens there, or another error if it cannot be bound.
// gRPC would take over another process's Unix socket, and gives no reason for a TCP port.
absl::Status CheckAddressFree(const Address& address);

}  // namespace tessera
