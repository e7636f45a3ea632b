// An IP address, and whether a server may connect to it on behalf of strangers.
//
// IPv4 addresses are stored as ::ffff:a.b.c.d, so an address and its mapped form are equal and no
// spelling evades the table. Threads: safe. Sources: IANA's special-purpose registries (RFC 6890
// and its updates), RFC 6052 (NAT64), the clouds' metadata addresses.
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

// Parses "192.0.2.1" and "2001:db8::1", in the strict forms of inet_pton only: no octal,
// hexadecimal or short numbers, no zone, no brackets.
std::optional<IpAddress> ParseIpAddress(absl::string_view text);
std::string ToString(const IpAddress& address);

enum class AddressScope {
  kPublic,   // the Internet
  kPrivate,  // loopback, RFC 1918, shared (CGNAT) and unique-local: an organisation's own machines
  // Link-local and metadata addresses, "this" network, multicast, reserved and documentation
  // ranges, and IPv6 forms that contain an IPv4 address. NAT64's count as the address they contain.
  kNever,
};
AddressScope ScopeOf(const IpAddress& address);

}  // namespace tessera
