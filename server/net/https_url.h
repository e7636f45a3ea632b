// URLs of images: one strict parser, and the operator's rules.
//
// Servers were attacked through URLs that their checker and their HTTP library parsed differently.
// Here one parser rejects everything unclear, and connections use only what it returns.
// Threads: safe. Errors: INVALID_ARGUMENT, for the caller to see.
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
  std::optional<IpAddress> literal;  // set if the host is an address
  int port = 443;
  std::string target = "/";  // path and query; begins with '/'

  std::string HostHeader() const;
};

// Parses "https://host[:port][/path][?query][#fragment]" in visible ASCII without backslashes.
// Rejects other schemes, user names, '%' in the host, names with other characters than letters,
// digits, '-' and '_' between dots, and unusual forms of an address (0x7f.1, 2130706433).
absl::StatusOr<HttpsUrl> ParseHttpsUrl(absl::string_view text);

// Resolves a redirect's Location against `base`: a whole URL, "//host/path", "/path", "path" or
// "?query".
absl::StatusOr<HttpsUrl> ResolveReference(const HttpsUrl& base, absl::string_view reference);

class UrlRules {
 public:
  // `hosts`: "images.example.com", "*.cdn.example.com" (every name below it, not itself),
  // "192.0.2.1", "[2001:db8::1]", each with an optional port (":8443"), else 443.
  // `allow_private`: their addresses may be AddressScope::kPrivate.
  static absl::StatusOr<UrlRules> Make(const std::vector<std::string>& hosts, bool allow_private);

  // Returns OK if the list has the host with this port.
  absl::Status Check(const HttpsUrl& url) const;
  // Returns true if connections to this address are allowed, by whatever name.
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
