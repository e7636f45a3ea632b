// An HTTP/1.1 client for tests: one connection, blocking, with access to the raw bytes.
#pragma once

#include <openssl/ssl.h>

#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace tessera {

struct HttpReply {
  int status = 0;                              // 0: the connection ended before a whole answer
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined
};

// How a client speaks TLS. PEM files; empty: none.
struct HttpTls {
  std::string ca, cert, key;
  std::string alpn = "http/1.1";  // "": offers none
  int max_version = 0;            // OpenSSL's; 0: the newest
};

class HttpClient {
 public:
  explicit HttpClient(const std::string& address);  // host:port
  HttpClient(const std::string& address, const HttpTls& tls);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // Returns true if the TLS handshake succeeded. In TLS 1.3 a server that rejects the client's
  // certificate says so only when the client reads.
  bool connected() const { return connected_; }
  std::string peer_name() const;  // the common name in the server's certificate
  std::string alpn() const;       // what was agreed on

  void Send(const std::string& bytes);
  HttpReply Read();  // a whole answer
  // The next server-sent event's data; "" at the stream's end. Read's header must be taken first.
  HttpReply ReadHead();
  std::string ReadEvent();
  // Returns true if the server ended the TLS session itself.
  bool closed_cleanly() const { return (SSL_get_shutdown(ssl_) & SSL_RECEIVED_SHUTDOWN) != 0; }
  bool AtEnd();  // waits for the server to close the connection (at most 10 s)
  // AtEnd, and whether it came within `limit`. REQUIRES: limit below 10 s.
  bool ends_within(absl::Duration limit);

  HttpReply Get(const std::string& path);
  HttpReply Post(const std::string& path, const std::string& body,
                 const std::vector<std::string>& headers = {});

 private:
  bool Fill();  // reads more into buffer_; false at the end
  std::string Line();
  std::string Bytes(size_t n);
  std::string Chunk();  // "" is the last

  int fd_ = -1;
  SSL* ssl_ = nullptr;
  bool connected_ = true;
  std::string buffer_;
  std::string events_;
};

}  // namespace tessera
