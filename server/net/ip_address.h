// An IP address, and whether a server that acts for strangers may connect to it.
//
// IPv4 addresses are held as ::ffff:a.b.c.d, so that an address and its mapped form are one thing
// and no spelling gets past the table. Threads: safe. Sources: IANA's special-purpose registries
// (RFC 6890 and those that extended it), RFC 6052 (NAT64), the clouds' metadata addresses.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace tessera {

struct IpAddress {
  std::array<uint8_t, 16> bytes{};

  bool is_v4() const;  // ::ffff:0:0/96
  bool operator==(const IpAddress&) const = default;
};

// "192.0.2.1" and "2001:db8::1", in the strict forms of inet_pton alone: no octal, hexadecimal or
// short numbers, no zone, no brackets.
std::optional<IpAddress> ParseIpAddress(absl::string_view text);
std::string ToString(const IpAddress& address);

enum class AddressScope {
  kPublic,   // anybody's: the Internet
  kPrivate,  // loopback, RFC 1918, shared (CGNAT) and unique-local: an organisation's own machines
  // Link-local and metadata addresses, "this" network, multicast, reserved and documentation
  // ranges, and IPv6 forms that hold an IPv4 address, but for NAT64's, which count as what they
  // hold.
  kNever,
};
AddressScope ScopeOf(const IpAddress& address);

}  // namespace tessera
