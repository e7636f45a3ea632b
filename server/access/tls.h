// The certificates of the encrypted listeners: read, judged, and read again when files change.
//
// gRPC and HTTP both take what is current for each new connection, so a certificate is renewed
// without a restart, and a new pair that does not work never replaces one that does. TLS 1.2 and
// newer, OpenSSL's own choice of ciphers. Threads: Refresh from one thread; the rest from any.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/base.h"
#include "base/file_watch.h"

struct ssl_ctx_st;  // OpenSSL's SSL_CTX

namespace tessera {

struct TlsPaths {
  std::string cert;       // PEM: the server's certificate, then those between it and its root
  std::string key;        // PEM, not encrypted
  std::string client_ca;  // PEM; if given, clients must show a certificate that one of these signed
};

// One reading of the files. Immutable.
struct TlsMaterial {
  std::string cert, key, client_ca;  // PEM; client_ca is empty if clients need no certificate
  absl::Time not_after;              // of the server's certificate
  // For HTTP/1.1: negotiates "http/1.1" with clients that speak ALPN, and refuses others of them.
  std::shared_ptr<ssl_ctx_st> http;
};

// FAILED_PRECONDITION and others naming the file and what is wrong: unreadable, no certificate, no
// key, or a key of another certificate. An expired certificate is not an error: its date says so.
absl::StatusOr<std::shared_ptr<const TlsMaterial>> ReadTls(const TlsPaths& paths);

class TlsSource {
 public:
  static absl::StatusOr<std::unique_ptr<TlsSource>> Open(const TlsPaths& paths);

  std::shared_ptr<const TlsMaterial> current() const;
  // True: the files had changed and are in use now; false: they have not. An error: they have, but
  // do not work, and what was read before stays in use. Each change is told once.
  absl::StatusOr<bool> Refresh();
  bool needs_client_certificate() const { return !paths_.client_ca.empty(); }

 private:
  explicit TlsSource(const TlsPaths& paths);

  const TlsPaths paths_;
  FileWatch watch_;
  mutable Mutex mutex_;
  std::shared_ptr<const TlsMaterial> current_ TESSERA_GUARDED_BY(mutex_);
};

}  // namespace tessera
