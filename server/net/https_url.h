// URLs of pictures: one strict reading, and the operator's rules about them.
//
// Servers were attacked through URLs that their checker and their HTTP library read differently.
// Here is one reader, what it does not understand plainly is refused, and connections are made from
// what it returns alone. Threads: safe. Errors: INVALID_ARGUMENT, for the caller to see.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/net/ip_address.h"

namespace tessera {

struct HttpsUrl {
  std::string host;                  // lower case, no trailing dot, no brackets
  std::optional<IpAddress> literal;  // where the host is an address
  int port = 443;
  std::string target = "/";  // path and query; begins with '/'

  std::string HostHeader() const;
};

// "https://host[:port][/path][?query][#fragment]" in visible ASCII without backslashes. Refused:
// other schemes, user names, '%' in the host, names that are not letters, digits, '-' and '_'
// between dots, and numbers that are an address in any but its usual form (0x7f.1, 2130706433).
absl::StatusOr<HttpsUrl> ParseHttpsUrl(absl::string_view text);

// A redirect's Location as seen from `base`: a URL of its own, "//host/path", "/path", "path" or
// "?query".
absl::StatusOr<HttpsUrl> ResolveReference(const HttpsUrl& base, absl::string_view reference);

class UrlRules {
 public:
  // `hosts`: "pictures.example.com", "*.cdn.example.com" (every name below it, not itself),
  // "192.0.2.1", "[2001:db8::1]"; each may name the one port that is meant (":8443"), else 443.
  // `allow_private`: their addresses may be those of AddressScope::kPrivate.
  static absl::StatusOr<UrlRules> Make(const std::vector<std::string>& hosts, bool allow_private);

  // Whether the list has the host with this port.
  absl::Status Check(const HttpsUrl& url) const;
  // Whether connections to this address are allowed, whatever name led to it.
  bool Allows(const IpAddress& address) const;

 private:
  struct Host {
    std::string name;       // as HttpsUrl's host
    bool below_it = false;  // names that end in "." + name
    bool literal = false;   // an address: never matched as a name
    int port = 443;
  };
  std::vector<Host> hosts_;
  bool allow_private_ = false;
};

}  // namespace tessera
