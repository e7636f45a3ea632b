// A connection's bytes, plain or encrypted, as Boost.Asio and Beast read and write them.
//
// A choice at run time, so that the session is ordinary code. Everything happens on the socket's
// strand. Internal to the HTTP server.
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

  // Plain without a context.
  HttpStream(Socket socket, const std::shared_ptr<SSL_CTX>& context) : socket_(std::move(socket)) {
    if (context == nullptr) return;
    // The wrapper gives back what it was given; the connection holds a count of its own.
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
  // Says that nothing follows, and waits for the peer to say the same.
  template <class Handler>
  void AsyncShutdown(Handler&& handler) {
    tls_->async_shutdown(std::forward<Handler>(handler));
  }

  // As the libraries call them: their own handlers, results unused.
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
