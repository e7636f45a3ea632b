// One connection of the HTTP server, over a plain or an encrypted stream.
//
// Everything happens on the connection's strand; what other threads ask for is posted there.
//
//   reading --request--> answering --answer written--> reading ... --> closed
//
// While a request is at work the connection is read on: a client that closes it is noticed at once,
// and bytes of a next request are kept. Lifetime: pending operations hold the session; it dies when
// there is none and nobody holds its exchange. Internal to http_server.cc.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "boost/asio.hpp"
#include "boost/beast/core/flat_buffer.hpp"
#include "boost/beast/http.hpp"
#include "server/http/http_error.h"
#include "server/http/http_server.h"

namespace tessera {

// What sessions and their server share.
class HttpSessionOwner {
 public:
  virtual ~HttpSessionOwner() = default;
  virtual const HttpServerOptions& options() const = 0;
  virtual bool stopping() const = 0;
  virtual void Handle(std::shared_ptr<HttpExchange> exchange) = 0;
  virtual void OnSessionEnd() = 0;
};

// A session as the server ends it.
class HttpSession {
 public:
  virtual ~HttpSession() = default;
  // `now`: whatever it does; else once its present answer, if any, is complete.
  virtual void Finish(bool now) = 0;
};

template <class Stream>
class HttpSessionOf final : public HttpExchange,
                            public HttpSession,
                            public std::enable_shared_from_this<HttpSessionOf<Stream>> {
  using Error = boost::system::error_code;

 public:
  HttpSessionOf(Stream stream, std::string peer, HttpSessionOwner* owner)
      : stream_(std::move(stream)),
        timer_(stream_.get_executor()),
        peer_(std::move(peer)),
        owner_(owner) {}
  ~HttpSessionOf() override { owner_->OnSessionEnd(); }

  void Start() {
    Post([](HttpSessionOf& s) { s.Read(); });
  }

  // --- HttpSession
  void Finish(bool now) override {
    Post([now](HttpSessionOf& s) {
      s.keep_alive_ = false;
      if (now || !s.answering_) s.Gone();
    });
  }

  // --- HttpExchange
  HttpRequest& request() override { return request_; }
  void Watch(std::function<void(bool)> on_written, std::function<void()> on_gone) override {
    Post([w = std::move(on_written), g = std::move(on_gone)](HttpSessionOf& s) mutable {
      s.on_written_ = std::move(w);
      s.on_gone_ = std::move(g);
      if (s.gone_) s.TellGone();
    });
  }
  void Respond(HttpResponse response) override {
    Post([r = std::move(response)](HttpSessionOf& s) mutable {
      std::string head = s.Head(r);
      absl::StrAppend(&head, "Content-Length: ", r.body.size(), "\r\n\r\n");
      s.Send(std::move(head) + r.body, [](HttpSessionOf& self) { self.Answered(); });
    });
  }
  void BeginStream(HttpResponse response) override {
    Post([r = std::move(response)](HttpSessionOf& s) mutable {
      if (!s.chunked_) s.keep_alive_ = false;  // HTTP/1.0: the end of the connection ends the body
      std::string head = s.Head(r);
      absl::StrAppend(&head, s.chunked_ ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n",
                      s.Chunk(r.body));
      s.Send(std::move(head), [](HttpSessionOf& self) { self.TellWritten(); });
    });
  }
  void Write(std::string piece) override {
    Post([p = std::move(piece)](HttpSessionOf& s) {
      s.Send(s.Chunk(p), [](HttpSessionOf& self) { self.TellWritten(); });
    });
  }
  void EndStream() override {
    Post([](HttpSessionOf& s) {
      s.Send(s.chunked_ ? "0\r\n\r\n" : "", [](HttpSessionOf& self) { self.Answered(); });
    });
  }
  void Abort() override {
    Post([](HttpSessionOf& s) { s.Gone(); });
  }

 private:
  template <class F>
  void Post(F f) {
    boost::asio::post(stream_.get_executor(),
                      [self = this->shared_from_this(), f = std::move(f)]() mutable { f(*self); });
  }

  auto& Socket() { return boost::beast::get_lowest_layer(stream_); }

  // Cuts the connection if nothing has cancelled it by then.
  void SetDeadline(absl::Duration after) {
    timer_.expires_after(absl::ToChronoNanoseconds(after));
    timer_.async_wait([self = this->shared_from_this()](Error error) {
      if (!error) self->Gone();
    });
  }

  void Read() {
    answering_ = false;
    parser_.emplace();
    parser_->header_limit(kMaxHeaderBytes);
    parser_->body_limit(owner_->options().max_body_bytes);
    SetDeadline(owner_->options().read_timeout);
    boost::beast::http::async_read_header(
        stream_, buffer_, *parser_, [self = this->shared_from_this()](Error error, size_t) {
          if (error) return self->ReadFailed(error);
          const auto& fields = self->parser_->get();
          if (!absl::EqualsIgnoreCase(Text(fields[boost::beast::http::field::expect]),
                                      "100-continue")) {
            return self->ReadBody();
          }
          self->Send("HTTP/1.1 100 Continue\r\n\r\n", [](HttpSessionOf& s) {
            s.SetDeadline(s.owner_->options().read_timeout);
            s.ReadBody();
          });
        });
  }

  void ReadBody() {
    boost::beast::http::async_read(stream_, buffer_, *parser_,
                                   [self = this->shared_from_this()](Error error, size_t) {
                                     if (error) return self->ReadFailed(error);
                                     self->Dispatch();
                                   });
  }

  void ReadFailed(Error error) {
    namespace http = boost::beast::http;
    if (gone_) return;
    HttpResponse response;
    if (error == http::error::body_limit) {
      response = PlainError(413,
                            absl::StrCat("the request's body is larger than this server's ",
                                         owner_->options().max_body_bytes, " bytes"),
                            "limit_exceeded");
    } else if (error == http::error::header_limit) {
      response = PlainError(431, "the request's headers are larger than 16 KiB", "limit_exceeded");
    } else if (error != http::error::end_of_stream && error != http::error::partial_message &&
               error.category() == make_error_code(http::error::bad_method).category()) {
      response = PlainError(400, absl::StrCat("not an HTTP request: ", error.message()),
                            "invalid_request");
    } else {
      return Gone();
    }
    // The rest of what the client sends is not read: the connection has no next request.
    keep_alive_ = false;
    answering_ = true;
    Respond(std::move(response));
  }

  void Dispatch() {
    timer_.cancel();
    auto message = parser_->release();
    parser_.reset();
    request_ = HttpRequest();
    request_.method = Text(message.method_string());
    request_.path = Text(message.target());
    if (const size_t query = request_.path.find('?'); query != std::string::npos) {
      request_.path.resize(query);
    }
    for (const auto& field : message) {
      request_.headers.emplace_back(absl::AsciiStrToLower(Text(field.name_string())),
                                    Text(field.value()));
    }
    request_.peer = peer_;
    request_.body = std::move(message.body());
    chunked_ = message.version() >= 11;
    keep_alive_ = message.keep_alive() && !owner_->stopping();
    answering_ = true;
    WatchForEnd();
    owner_->Handle(this->shared_from_this());
  }

  // Reads on while the request is at work.
  void WatchForEnd() {
    if (watching_ || buffer_.size() > 0) return;
    watching_ = true;
    stream_.async_read_some(buffer_.prepare(kReadBytes),
                            [self = this->shared_from_this()](Error error, size_t n) {
                              self->watching_ = false;
                              if (error) return self->Gone();
                              self->buffer_.commit(n);
                              if (!self->answering_) self->Read();
                            });
  }

  static std::string Text(boost::beast::string_view text) { return {text.data(), text.size()}; }

  std::string Head(const HttpResponse& response) {
    const auto reason =
        boost::beast::http::obsolete_reason(boost::beast::http::int_to_status(response.status));
    std::string head =
        absl::StrCat("HTTP/1.1 ", response.status, " ", Text(reason),
                     "\r\nContent-Type: ", response.content_type, "\r\nCache-Control: no-store\r\n",
                     keep_alive_ ? "" : "Connection: close\r\n");
    for (const auto& [name, value] : response.headers) {
      absl::StrAppend(&head, name, ": ", value, "\r\n");
    }
    return head;
  }

  std::string Chunk(const std::string& piece) const {
    if (!chunked_ || piece.empty()) return piece;  // an empty chunk would end the body
    return absl::StrCat(absl::Hex(piece.size()), "\r\n", piece, "\r\n");
  }

  template <class Then>
  void Send(std::string bytes, Then then) {
    if (gone_) return;
    out_ = std::move(bytes);
    SetDeadline(owner_->options().write_timeout);
    boost::asio::async_write(stream_, boost::asio::buffer(out_),
                             [self = this->shared_from_this(), then](Error error, size_t) {
                               if (error) return self->Gone();
                               if (self->gone_) return;
                               self->timer_.cancel();
                               then(*self);
                             });
  }

  void TellWritten() {
    if (on_written_) on_written_(true);
  }

  void TellGone() {
    auto gone = std::exchange(on_gone_, nullptr);
    on_written_ = nullptr;
    if (gone) gone();
  }

  void Answered() {
    on_written_ = nullptr;
    on_gone_ = nullptr;
    request_ = HttpRequest();
    if (!keep_alive_ || owner_->stopping()) return Linger();
    answering_ = false;
    if (buffer_.size() > 0 && !watching_) return Read();
    SetDeadline(owner_->options().read_timeout);  // for the next request's first byte
    WatchForEnd();
  }

  // Says that nothing follows, and gives the client a moment to read the answer before the rest of
  // its request, if any, makes the system reset the connection.
  void Linger() {
    answering_ = false;
    Error ignored;
    Socket().shutdown(boost::asio::socket_base::shutdown_send, ignored);
    SetDeadline(kLinger);
    Discard();
  }
  void Discard() {
    if (watching_) return;  // that read's end, or the deadline, ends the session
    buffer_.clear();
    Socket().async_read_some(buffer_.prepare(kReadBytes),
                             [self = this->shared_from_this()](Error error, size_t) {
                               if (error) return self->Gone();
                               self->Discard();
                             });
  }

  void Gone() {
    if (std::exchange(gone_, true)) return;
    timer_.cancel();
    Error ignored;
    Socket().close(ignored);
    TellGone();
  }

  static constexpr uint32_t kMaxHeaderBytes = 16 << 10;
  static constexpr size_t kReadBytes = 4096;
  static constexpr absl::Duration kLinger = absl::Seconds(2);

  Stream stream_;
  boost::asio::steady_timer timer_;
  const std::string peer_;
  HttpSessionOwner* const owner_;  // outlives every session
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  HttpRequest request_;
  std::string out_;  // being written
  std::function<void(bool)> on_written_;
  std::function<void()> on_gone_;
  bool keep_alive_ = true;
  bool chunked_ = true;
  bool answering_ = false;  // a request was handed on, or refused, and its answer is not complete
  bool watching_ = false;   // WatchForEnd's read is pending
  bool gone_ = false;
};

}  // namespace tessera
