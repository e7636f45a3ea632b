#include "tests/server/https_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace tessera {

HttpsServer::HttpsServer(const TestCertificates::Pair& pair, Handler handler, int max_version)
    : handler_(std::move(handler)), tls_(SSL_CTX_new(TLS_server_method())) {
  std::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes without MSG_NOSIGNAL
  if (max_version != 0) {
    // Debian's OpenSSL does not offer versions before 1.2 at its usual level.
    SSL_CTX_set_security_level(tls_.get(), 0);
    SSL_CTX_set_min_proto_version(tls_.get(), TLS1_VERSION);
    SSL_CTX_set_max_proto_version(tls_.get(), max_version);
  }
  EXPECT_EQ(SSL_CTX_use_certificate_chain_file(tls_.get(), pair.cert.c_str()), 1);
  EXPECT_EQ(SSL_CTX_use_PrivateKey_file(tls_.get(), pair.key.c_str(), SSL_FILETYPE_PEM), 1);
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in at = {};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(at);
  EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&at), size), 0);
  EXPECT_EQ(listen(listener_, 64), 0);
  EXPECT_EQ(getsockname(listener_, reinterpret_cast<sockaddr*>(&at), &size), 0);
  port_ = ntohs(at.sin_port);
  acceptor_ = std::thread([this] { Accept(); });
}

HttpsServer::~HttpsServer() {
  shutdown(listener_, SHUT_RDWR);
  {
    MutexLock lock(mutex_);
    ending_ = true;
    for (const int fd : open_) shutdown(fd, SHUT_RDWR);
  }
  acceptor_.join();
  for (std::thread& connection : connections_) connection.join();
  close(listener_);
}

std::vector<std::string> HttpsServer::heads() const {
  MutexLock lock(mutex_);
  return heads_;
}

std::string HttpsServer::Url(absl::string_view host, absl::string_view path) const {
  return absl::StrCat("https://", host, ":", port_, path);
}

void HttpsServer::Accept() {
  while (true) {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    {
      MutexLock lock(mutex_);
      open_.push_back(fd);
      if (ending_) shutdown(fd, SHUT_RDWR);
    }
    connections_.emplace_back([this, fd] { Serve(fd); });
  }
}

void HttpsServer::Serve(int fd) {
  SSL* ssl = SSL_new(tls_.get());
  SSL_set_fd(ssl, fd);
  std::string head;
  char bytes[4096];
  if (SSL_accept(ssl) == 1) {
    int n = 1;
    while (n > 0 && !absl::StrContains(head, "\r\n\r\n")) {
      n = SSL_read(ssl, bytes, sizeof(bytes));
      if (n > 0) head.append(bytes, static_cast<size_t>(n));
    }
    if (n > 0) {
      {
        MutexLock lock(mutex_);
        heads_.push_back(head);
      }
      handler_(head, [ssl](const std::string& out) {
        return SSL_write(ssl, out.data(), static_cast<int>(out.size())) > 0;
      });
      SSL_shutdown(ssl);
    }
  }
  SSL_free(ssl);
  MutexLock lock(mutex_);
  open_.remove(fd);
  close(fd);
}

std::string HttpAnswer(absl::string_view status, absl::string_view body,
                       absl::string_view headers) {
  return absl::StrCat("HTTP/1.1 ", status, "\r\n", headers, "Content-Length: ", body.size(),
                      "\r\n\r\n", body);
}

}  // namespace tessera
