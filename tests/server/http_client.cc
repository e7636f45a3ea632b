#include "tests/server/http_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "gtest/gtest.h"

namespace tessera {

HttpClient::HttpClient(const std::string& address) {
  const size_t colon = address.rfind(':');
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(std::atoi(address.c_str() + colon + 1)));
  EXPECT_EQ(inet_pton(AF_INET, address.substr(0, colon).c_str(), &to.sin_addr), 1) << address;
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval limit = {10, 0};
  setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  EXPECT_EQ(connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0) << address;
}

HttpClient::HttpClient(const std::string& address, const HttpTls& tls) : HttpClient(address) {
  std::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes without MSG_NOSIGNAL
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  if (tls.max_version != 0) {
    // Debian's OpenSSL does not offer versions before 1.2 at its usual level.
    SSL_CTX_set_security_level(context, 0);
    SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(context, tls.max_version);
  }
  EXPECT_EQ(SSL_CTX_load_verify_file(context, tls.ca.c_str()), 1) << tls.ca;
  if (!tls.cert.empty()) {
    EXPECT_EQ(SSL_CTX_use_certificate_chain_file(context, tls.cert.c_str()), 1);
    EXPECT_EQ(SSL_CTX_use_PrivateKey_file(context, tls.key.c_str(), SSL_FILETYPE_PEM), 1);
  }
  ssl_ = SSL_new(context);
  SSL_CTX_free(context);
  const std::string offer =
      absl::StrCat(std::string(1, static_cast<char>(tls.alpn.size())), tls.alpn);
  if (!tls.alpn.empty()) {
    SSL_set_alpn_protos(ssl_, reinterpret_cast<const unsigned char*>(offer.data()),
                        static_cast<unsigned>(offer.size()));
  }
  SSL_set1_host(ssl_, "localhost");
  SSL_set_fd(ssl_, fd_);
  connected_ = SSL_connect(ssl_) == 1;
}

HttpClient::~HttpClient() {
  SSL_free(ssl_);
  close(fd_);
}

std::string HttpClient::peer_name() const {
  X509* certificate = SSL_get1_peer_certificate(ssl_);
  char name[256] = "";
  X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name, sizeof(name));
  X509_free(certificate);
  return name;
}

std::string HttpClient::alpn() const {
  const unsigned char* chosen = nullptr;
  unsigned length = 0;
  SSL_get0_alpn_selected(ssl_, &chosen, &length);
  return {reinterpret_cast<const char*>(chosen), length};
}

void HttpClient::Send(const std::string& bytes) {
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t n =
        ssl_ != nullptr
            ? SSL_write(ssl_, bytes.data() + sent, static_cast<int>(bytes.size() - sent))
            : send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return;  // the server may refuse before it has read everything
    sent += static_cast<size_t>(n);
  }
}

bool HttpClient::Fill() {
  char bytes[4096];
  const ssize_t n =
      ssl_ != nullptr ? SSL_read(ssl_, bytes, sizeof(bytes)) : recv(fd_, bytes, sizeof(bytes), 0);
  if (n > 0) buffer_.append(bytes, static_cast<size_t>(n));
  return n > 0;
}

std::string HttpClient::Line() {
  size_t end;
  while ((end = buffer_.find("\r\n")) == std::string::npos) {
    if (!Fill()) return "";
  }
  std::string line = buffer_.substr(0, end);
  buffer_.erase(0, end + 2);
  return line;
}

std::string HttpClient::Bytes(size_t n) {
  while (buffer_.size() < n && Fill()) {
  }
  std::string bytes = buffer_.substr(0, n);
  buffer_.erase(0, bytes.size());
  return bytes;
}

std::string HttpClient::Chunk() {
  const size_t size = std::strtoul(Line().c_str(), nullptr, 16);
  std::string chunk = Bytes(size);
  Line();
  return chunk;
}

HttpReply HttpClient::ReadHead() {
  HttpReply reply;
  const std::string first = Line();
  if (first.size() < 12 || !absl::SimpleAtoi(first.substr(9, 3), &reply.status)) return {};
  for (std::string line = Line(); !line.empty(); line = Line()) {
    const size_t colon = line.find(": ");
    if (colon == std::string::npos) return {};
    reply.headers[absl::AsciiStrToLower(line.substr(0, colon))] = line.substr(colon + 2);
  }
  return reply;
}

HttpReply HttpClient::Read() {
  HttpReply reply = ReadHead();
  if (reply.headers.contains("content-length")) {
    size_t length = 0;
    if (!absl::SimpleAtoi(reply.headers.at("content-length"), &length)) return {};
    reply.body = Bytes(length);
    if (reply.body.size() < length) reply.status = 0;
  } else if (reply.headers.contains("transfer-encoding")) {
    for (std::string chunk = Chunk(); !chunk.empty(); chunk = Chunk()) reply.body += chunk;
  } else {
    while (Fill()) {
    }
    reply.body = std::exchange(buffer_, "");
  }
  return reply;
}

std::string HttpClient::ReadEvent() {
  size_t end;
  while ((end = events_.find("\n\n")) == std::string::npos) {
    const std::string chunk = Chunk();
    if (chunk.empty()) return "";
    events_ += chunk;
  }
  const std::string event = events_.substr(0, end);
  events_.erase(0, end + 2);
  EXPECT_EQ(event.substr(0, 6), "data: ");
  return event.substr(6);
}

bool HttpClient::AtEnd() {
  while (Fill()) {
  }
  return true;
}

bool HttpClient::ends_within(absl::Duration limit) {
  const absl::Time start = SteadyNow();
  return AtEnd() && SteadyNow() - start < limit;
}

HttpReply HttpClient::Get(const std::string& path) {
  Send(absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: test\r\n\r\n"));
  return Read();
}

HttpReply HttpClient::Post(const std::string& path, const std::string& body,
                           const std::vector<std::string>& headers) {
  std::string head = absl::StrCat("POST ", path, " HTTP/1.1\r\nHost: test\r\n");
  for (const std::string& header : headers) absl::StrAppend(&head, header, "\r\n");
  Send(absl::StrCat(head, "Content-Length: ", body.size(), "\r\n\r\n", body));
  return Read();
}

}  // namespace tessera
