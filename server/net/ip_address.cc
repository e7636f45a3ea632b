#include "server/net/ip_address.h"

#include <arpa/inet.h>

#include <algorithm>

#include "base/base.h"

namespace tessera {
namespace {

constexpr std::array<uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
constexpr std::array<uint8_t, 12> kNat64 = {0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0};

struct Network {
  const char* prefix;
  int bits;  // of the prefix's own family
  AddressScope scope;
};

// The first that holds the address decides; IPv6 addresses that none holds are not in use.
constexpr Network kNetworks[] = {
    // Metadata services outside the link-local range: Alibaba's, Azure's, Oracle's, Amazon's,
    // Google's.
    {"100.100.100.200", 32, AddressScope::kNever},
    {"168.63.129.16", 32, AddressScope::kNever},
    {"192.0.0.192", 32, AddressScope::kNever},
    {"fd00:ec2::254", 128, AddressScope::kNever},
    {"fd20:ce::254", 128, AddressScope::kNever},
    {"0.0.0.0", 8, AddressScope::kNever},  // "this" network: 0.0.0.0 reaches loopback
    {"10.0.0.0", 8, AddressScope::kPrivate},
    {"100.64.0.0", 10, AddressScope::kPrivate},
    {"127.0.0.0", 8, AddressScope::kPrivate},
    {"169.254.0.0", 16, AddressScope::kNever},
    {"172.16.0.0", 12, AddressScope::kPrivate},
    {"192.0.0.0", 24, AddressScope::kNever},
    {"192.0.2.0", 24, AddressScope::kNever},
    {"192.88.99.0", 24, AddressScope::kNever},
    {"192.168.0.0", 16, AddressScope::kPrivate},
    {"198.18.0.0", 15, AddressScope::kNever},
    {"198.51.100.0", 24, AddressScope::kNever},
    {"203.0.113.0", 24, AddressScope::kNever},
    {"224.0.0.0", 3, AddressScope::kNever},  // multicast, reserved, broadcast
    {"0.0.0.0", 0, AddressScope::kPublic},
    {"::1", 128, AddressScope::kPrivate},
    {"fc00::", 7, AddressScope::kPrivate},
    {"2001::", 23, AddressScope::kNever},  // protocols of the IETF, Teredo among them
    {"2001:db8::", 32, AddressScope::kNever},
    {"2002::", 16, AddressScope::kNever},  // 6to4
    {"3fff::", 20, AddressScope::kNever},
    {"2000::", 3, AddressScope::kPublic},
};

bool Holds(const Network& network, const IpAddress& address) {
  const IpAddress prefix = *ParseIpAddress(network.prefix);
  const int bits = network.bits + (prefix.is_v4() ? 96 : 0);
  for (int bit = 0; bit < bits; ++bit) {
    const int difference = prefix.bytes[bit / 8] ^ address.bytes[bit / 8];
    if ((difference & (0x80 >> (bit % 8))) != 0) return false;
  }
  return true;
}

}  // namespace

bool IpAddress::is_v4() const { return std::equal(kMapped.begin(), kMapped.end(), bytes.begin()); }

std::optional<IpAddress> ParseIpAddress(absl::string_view text) {
  const std::string terminated(text);
  // inet_pton would read "1.2.3.4\0..." as far as the zero.
  if (terminated.find('\0') != std::string::npos) return std::nullopt;
  IpAddress address;
  if (inet_pton(AF_INET6, terminated.c_str(), address.bytes.data()) == 1) return address;
  std::copy(kMapped.begin(), kMapped.end(), address.bytes.begin());
  if (inet_pton(AF_INET, terminated.c_str(), address.bytes.data() + kMapped.size()) == 1) {
    return address;
  }
  return std::nullopt;
}

std::string ToString(const IpAddress& address) {
  char text[INET6_ADDRSTRLEN];
  const bool v4 = address.is_v4();
  const void* bytes = address.bytes.data() + (v4 ? kMapped.size() : 0);
  TESSERA_CHECK(inet_ntop(v4 ? AF_INET : AF_INET6, bytes, text, sizeof(text)) != nullptr);
  return text;
}

AddressScope ScopeOf(const IpAddress& address) {
  IpAddress candidate = address;
  if (std::equal(kNat64.begin(), kNat64.end(), address.bytes.begin())) {
    std::copy(kMapped.begin(), kMapped.end(), candidate.bytes.begin());
  }
  for (const Network& network : kNetworks) {
    if (Holds(network, candidate)) return network.scope;
  }
  return AddressScope::kNever;
}

}  // namespace tessera
