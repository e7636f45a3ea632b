// Sends one GET over TLS to an address that the caller has validated.
//
// It connects to the given address only: it resolves no names, follows no redirects, and knows no
// proxies, cookies or passwords, so there is nothing to switch off. (libcurl does all that, and
// would bring thirty shared libraries into a process that has Boost.Beast and OpenSSL already.)
// TLS 1.2 and newer, with a certificate for the URL's host. Blocking. Threads: safe.
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
  absl::Duration connect_timeout;  // for each address, handshake included
  int64_t max_body_bytes = 0;
  std::function<bool()> cancelled;  // called every few tens of milliseconds
};

struct HttpsReply {
  FetchOutcome outcome = FetchOutcome::kBroken;
  std::string detail;    // the error for the log; may contain addresses
  int status = 0;        // HTTP's; set with kOk and kStatus
  std::string location;  // of a redirect
  std::string body;      // of status 200 only
};

class HttpsClient {
 public:
  // Trusts the PEM certificates in `ca_file`; empty: those of SSL_CERT_FILE, or the distribution's.
  // FAILED_PRECONDITION with a file that does not work.
  static absl::StatusOr<HttpsClient> Open(const std::string& ca_file);

  // Tries the addresses in turn until one has a connection and a certificate. Returns kOk for
  // status 200 and kStatus for any other; the body of a redirect is not read. REQUIRES: addresses.
  HttpsReply Get(const HttpsUrl& url, const std::vector<IpAddress>& addresses,
                 const HttpsLimits& limits) const;

 private:
  explicit HttpsClient(std::shared_ptr<ssl_ctx_st> tls) : tls_(std::move(tls)) {}
  std::shared_ptr<ssl_ctx_st> tls_;
};

}  // namespace tessera
