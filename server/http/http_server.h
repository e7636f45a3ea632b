// HTTP/1.1 for the gateway: reads requests within limits, passes each to a handler, and writes the
// answer whole or as a stream.
//
// Asynchronous (Boost.Asio; Boost.Beast parses): a connection costs memory, never a thread. A
// request is read whole before it is handled, at most `max_body_bytes`. Headers take at most 16 KiB
// and arrive within `read_timeout`, and so does the body; in between the gate checks the head. A
// connection has one request at a time; `Expect: 100-continue` is answered. Transport errors (400,
// 408, 413, 431, 503) are answered here, as OpenAI-shaped JSON. Threads: HttpExchange may be used
// from any; the handler and all callbacks run on the server's threads and must not block.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/access/tls.h"
#include "server/net/address.h"

namespace tessera {

struct HttpRequest {
  std::string method;
  std::string path;  // of the target, before '?'
  std::string body;
  std::string peer;  // "ipv4:127.0.0.1:5000", as gRPC writes it
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  // Returns the first header of that lower-case name, or "".
  absl::string_view Header(absl::string_view name) const;
  // Returns all headers of that name.
  std::vector<absl::string_view> Headers(absl::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers;  // without length and connection
  std::string content_type = "application/json";
  std::string body;
};

// One request and its answer: either Respond, or BeginStream, Writes, and EndStream.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  virtual HttpRequest& request() = 0;
  virtual void Respond(HttpResponse response) = 0;
  // Sends status and headers of an answer in pieces; `response.body` is the first piece.
  virtual void BeginStream(HttpResponse response) = 0;
  // Sends a piece. At most one write is in flight: the next one waits for on_written.
  virtual void Write(std::string piece) = 0;
  virtual void EndStream() = 0;
  // Closes the connection, because the answer cannot be finished.
  virtual void Abort() = 0;
  // Sets the callbacks, once, before any answer. `on_written(ok)` follows BeginStream and each
  // Write. `on_gone` is called once if the connection ends before the answer is complete. Both may
  // own the caller: they are released at the answer's end.
  virtual void Watch(std::function<void(bool ok)> on_written, std::function<void()> on_gone) = 0;
};

struct HttpServerOptions {
  int64_t max_body_bytes = int64_t{64} << 20;
  int max_connections = 1024;
  absl::Duration read_timeout = absl::Seconds(60);   // for the head, and for the body
  absl::Duration idle_timeout = absl::Minutes(5);    // between requests
  absl::Duration write_timeout = absl::Seconds(30);  // for a piece of an answer
  absl::Duration handshake_timeout = absl::Seconds(10);
  absl::Duration keepalive_time = absl::Seconds(60);     // idle time before TCP probes the peer
  absl::Duration keepalive_timeout = absl::Seconds(20);  // for the peer's answer
  const TlsSource* tls = nullptr;  // null: plain text; else outlives the server
  int threads = 2;
};

class HttpServer {
 public:
  using Handler = std::function<void(std::shared_ptr<HttpExchange>)>;
  // Checks a request's head. A response rejects it: the body is not read, the connection ends.
  using Gate = std::function<std::optional<HttpResponse>(const HttpRequest&)>;
  // Starts to listen. ALREADY_EXISTS or another error names the address.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const Address& address,
                                                           const HttpServerOptions& options,
                                                           Gate gate, Handler handler);
  ~HttpServer();  // Stop
  int port() const;
  // Stops accepting, closes idle connections now and the others after their answer. Returns once
  // all have ended, or at `deadline`. Idempotent.
  void Stop(absl::Time deadline);

 private:
  class Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera
