// The certificates of the encrypted listeners: read, validated, and read again when files change.
//
// gRPC and HTTP take the current ones for each new connection, so a certificate is renewed without
// a restart. Files that do not work never replace files that do. TLS 1.2 and newer, with OpenSSL's
// own choice of ciphers. Threads: Refresh from one thread, the rest from any.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/file_watch.h"
#include "base/mutex.h"

struct ssl_ctx_st;  // OpenSSL's SSL_CTX

namespace tessera {

struct TlsPaths {
  std::string cert;       // PEM: the server's certificate, then the intermediate ones
  std::string key;        // PEM, not encrypted
  std::string client_ca;  // PEM; if set, clients need a certificate that one of these signed
};

// One reading of the files. Immutable.
struct TlsMaterial {
  std::string cert, key, client_ca;  // PEM; client_ca is empty if clients need no certificate
  absl::Time not_after;              // of the server's certificate
  // For HTTP/1.1. A client that speaks ALPN must offer "http/1.1".
  std::shared_ptr<ssl_ctx_st> http;
};

// Reads and validates the files. FAILED_PRECONDITION and other errors name the file and the fault:
// unreadable, no certificate, no key, or the key of another certificate. An expired certificate is
// no error; not_after tells.
absl::StatusOr<std::shared_ptr<const TlsMaterial>> ReadTls(const TlsPaths& paths);

class TlsSource {
 public:
  static absl::StatusOr<std::unique_ptr<TlsSource>> Open(const TlsPaths& paths);

  std::shared_ptr<const TlsMaterial> current() const;
  // Reads the files if they have changed. Returns true if they have, and are in use now. Returns an
  // error, once for each change, if they do not work; the previous ones then stay in use.
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
