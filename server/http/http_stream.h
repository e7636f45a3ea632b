// A connection's bytes, plain or encrypted, for Boost.Asio and Beast.
//
// The choice is made at run time, so the session is ordinary code. Everything happens on the
// socket's strand. Internal to the HTTP server.
#pragma once

#include <openssl/ssl.h>

#include <memory>
#include <optional>
#include <utility>

#include "boost/asio.hpp"
#include "boost/asio/ssl.hpp"

namespace tessera {

class HttpStream {
 public:
  using Socket = boost::asio::ip::tcp::socket;
  using executor_type = Socket::executor_type;

  // Encrypted if there is a context.
  HttpStream(Socket socket, const std::shared_ptr<SSL_CTX>& context) : socket_(std::move(socket)) {
    if (context == nullptr) return;
    // The wrapper releases its reference; the connection holds its own.
    SSL_CTX_up_ref(context.get());
    boost::asio::ssl::context wrapper(context.get());
    tls_.emplace(socket_, wrapper);
  }

  bool encrypted() const { return tls_.has_value(); }
  executor_type get_executor() { return socket_.get_executor(); }
  Socket& socket() { return socket_; }

  // REQUIRES for both: encrypted(). `handler` takes an error code.
  template <class Handler>
  void AsyncHandshake(Handler&& handler) {
    tls_->async_handshake(boost::asio::ssl::stream_base::server, std::forward<Handler>(handler));
  }
  // Sends the end of the stream, and waits for the peer's.
  template <class Handler>
  void AsyncShutdown(Handler&& handler) {
    tls_->async_shutdown(std::forward<Handler>(handler));
  }

  // The libraries call these with their own handlers; results are unused.
  template <class Buffers, class Handler>
  void async_read_some(const Buffers& buffers, Handler&& handler) {
    if (tls_) return tls_->async_read_some(buffers, std::forward<Handler>(handler));
    socket_.async_read_some(buffers, std::forward<Handler>(handler));
  }
  template <class Buffers, class Handler>
  void async_write_some(const Buffers& buffers, Handler&& handler) {
    if (tls_) return tls_->async_write_some(buffers, std::forward<Handler>(handler));
    socket_.async_write_some(buffers, std::forward<Handler>(handler));
  }

 private:
  Socket socket_;
  std::optional<boost::asio::ssl::stream<Socket&>> tls_;
};

}  // namespace tessera
