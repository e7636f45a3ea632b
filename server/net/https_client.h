// One GET over TLS, to an address that the caller has already judged.
//
// The address connected to is the one passed in: this file resolves no names, follows no redirects,
// and knows no proxies, cookies or passwords, so that nothing has to be switched off. (libcurl,
// which does all that, would also bring thirty shared libraries, a second OpenSSL among them, into
// a process that has Boost.Beast and OpenSSL already.) TLS 1.2 and newer, with a certificate for
// the URL's host. Blocking. Threads: safe; a call keeps to its own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/net/https_url.h"
#include "server/net/ip_address.h"
#include "server/observability/fetch_outcome.h"

struct ssl_ctx_st;  // OpenSSL's SSL_CTX

namespace tessera {

struct HttpsLimits {
  absl::Time deadline;
  absl::Duration connect_timeout;  // of each address, handshake included
  int64_t max_body_bytes = 0;
  std::function<bool()> cancelled;  // asked every few tens of milliseconds
};

struct HttpsReply {
  FetchOutcome outcome = FetchOutcome::kBroken;
  std::string detail;    // what went wrong, for the log: may name addresses
  int status = 0;        // of HTTP; set with kOk and kStatus
  std::string location;  // of a redirect
  std::string body;      // of status 200 alone
};

class HttpsClient {
 public:
  // Trusts the PEM certificates in `ca_file`, or the system's if that is empty: SSL_CERT_FILE's, or
  // those in the distribution's place. FAILED_PRECONDITION naming a file that does not work.
  static absl::StatusOr<HttpsClient> Open(const std::string& ca_file);

  // Tries the addresses in turn until one has a connection and a certificate. kOk with status 200,
  // or kStatus with any other (redirects too, their bodies unread). REQUIRES: addresses.
  HttpsReply Get(const HttpsUrl& url, const std::vector<IpAddress>& addresses,
                 const HttpsLimits& limits) const;

 private:
  explicit HttpsClient(std::shared_ptr<ssl_ctx_st> tls) : tls_(std::move(tls)) {}
  std::shared_ptr<ssl_ctx_st> tls_;
};

}  // namespace tessera
