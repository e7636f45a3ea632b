// One connection of the HTTP server, over a plain or an encrypted stream.
//
// Everything happens on the connection's strand; calls from other threads are posted there.
//
//   [handshake] -> reading --request--> answering --answer written--> reading ... --> closed
//
// The connection is read while a request is answered: a client that closes it is noticed at once,
// and bytes of a next request are kept. Lifetime: pending operations hold the session; it ends when
// there is none and the exchange is released. Internal to the HTTP server.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>  // Boost.Asio 1.74 forgets it

#include "boost/asio.hpp"
#include "boost/beast/core/flat_buffer.hpp"
#include "boost/beast/http.hpp"
#include "server/http/http_server.h"
#include "server/http/http_stream.h"

namespace tessera {

// The server as its sessions see it.
class HttpSessionOwner {
 public:
  virtual ~HttpSessionOwner() = default;
  virtual const HttpServerOptions& options() const = 0;
  virtual bool stopping() const = 0;
  virtual std::optional<HttpResponse> Refuse(const HttpRequest& head) = 0;
  virtual void Handle(std::shared_ptr<HttpExchange> exchange) = 0;
  virtual void OnSessionEnd() = 0;
};

class HttpSession final : public HttpExchange, public std::enable_shared_from_this<HttpSession> {
 public:
  // `owner` outlives every session.
  HttpSession(HttpStream::Socket socket, const std::shared_ptr<SSL_CTX>& tls, std::string peer,
              HttpSessionOwner* owner);
  ~HttpSession() override { owner_->OnSessionEnd(); }

  void Start();
  // Closes the connection: `now`, or once its current answer, if any, is complete.
  void Finish(bool now);

  // --- HttpExchange
  HttpRequest& request() override { return request_; }
  void Watch(std::function<void(bool)> on_written, std::function<void()> on_gone) override;
  void Respond(HttpResponse response) override;
  void BeginStream(HttpResponse response) override;
  void Write(std::string piece) override;
  void EndStream() override;
  void Abort() override;

 private:
  using Error = boost::system::error_code;
  using Then = void (HttpSession::*)();

  template <class F>
  void Post(F f);
  // Closes the connection unless the timer is cancelled by then.
  void SetDeadline(absl::Duration after);
  void Read();
  void TakeHead();  // from the parser into request_
  void ReadBody();
  void ReadFailed(Error error);
  void Refuse(HttpResponse response);  // and read no more
  void Dispatch();
  void WatchForEnd();  // reads on while the request is at work
  std::string Head(const HttpResponse& response) const;
  std::string Chunk(const std::string& piece) const;
  void Send(std::string bytes, Then then);
  void TellWritten();
  void TellGone();
  void Answered();
  // Sends the end, and gives the client a moment to read the answer. Without it, unread bytes of
  // the request would make the system reset the connection.
  void Linger();
  void Discard();
  void Gone();

  HttpStream stream_;
  boost::asio::steady_timer timer_;
  const std::string peer_;
  HttpSessionOwner* const owner_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  HttpRequest request_;
  std::string out_;  // being written
  std::function<void(bool)> on_written_;
  std::function<void()> on_gone_;
  bool keep_alive_ = true;
  bool chunked_ = true;
  bool answering_ = false;  // a request's answer is not complete
  bool watching_ = false;   // WatchForEnd's read is pending
  bool closing_ = false;    // Linger
  bool gone_ = false;
};

}  // namespace tessera
