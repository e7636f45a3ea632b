// An HTTPS server on 127.0.0.1 whose answers a test writes byte by byte.
#pragma once

#include <openssl/ssl.h>

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/mutex.h"
#include "tests/server/certificates.h"

namespace tessera {

// Threads: one a connection, which runs the handler. Stops, and cuts what is open, when destroyed.
class HttpsServer {
 public:
  // False: the client has closed the connection.
  using Write = std::function<bool(const std::string& bytes)>;
  // `head`: the request's first line and headers.
  using Handler = std::function<void(const std::string& head, const Write& write)>;

  // `max_version`: OpenSSL's; 0: the newest.
  HttpsServer(const TestCertificates::Pair& pair, Handler handler, int max_version = 0);
  ~HttpsServer();
  HttpsServer(const HttpsServer&) = delete;
  HttpsServer& operator=(const HttpsServer&) = delete;

  int port() const { return port_; }
  // Returns the heads of the received requests, in order.
  std::vector<std::string> heads() const;
  // A host without its port as this server's: "https://" + host + ":port" + path.
  std::string Url(absl::string_view host, absl::string_view path) const;

 private:
  struct Free {
    void operator()(SSL_CTX* p) const { SSL_CTX_free(p); }
  };
  void Accept();
  void Serve(int fd);

  const Handler handler_;
  std::unique_ptr<SSL_CTX, Free> tls_;
  int listener_ = -1, port_ = 0;
  mutable Mutex mutex_;
  bool ending_ TESSERA_GUARDED_BY(mutex_) = false;
  std::list<int> open_ TESSERA_GUARDED_BY(mutex_);
  std::vector<std::string> heads_ TESSERA_GUARDED_BY(mutex_);
  std::vector<std::thread> connections_;  // the acceptor's, until it has ended
  std::thread acceptor_;
};

// A whole answer: "HTTP/1.1 <status>", `headers` (each with its line end), a length and the body.
std::string HttpAnswer(absl::string_view status, absl::string_view body,
                       absl::string_view headers = "");

}  // namespace tessera
