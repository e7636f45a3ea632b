#include "server/http/http_session.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/http/http_error.h"

namespace tessera {
namespace {

namespace http = boost::beast::http;

constexpr uint32_t kMaxHeaderBytes = 16 << 10;
constexpr size_t kReadBytes = 4096;
constexpr absl::Duration kLinger = absl::Seconds(2);

std::string Text(boost::beast::string_view text) { return {text.data(), text.size()}; }

}  // namespace

HttpSession::HttpSession(HttpStream::Socket socket, const std::shared_ptr<SSL_CTX>& tls,
                         std::string peer, HttpSessionOwner* owner)
    : stream_(std::move(socket), tls),
      timer_(stream_.get_executor()),
      peer_(std::move(peer)),
      owner_(owner) {}

template <class F>
void HttpSession::Post(F f) {
  boost::asio::post(stream_.get_executor(),
                    [self = shared_from_this(), f = std::move(f)]() mutable { f(*self); });
}

void HttpSession::Start() {
  Post([](HttpSession& s) {
    if (!s.stream_.encrypted()) return s.Read();
    s.SetDeadline(s.owner_->options().handshake_timeout);
    s.stream_.AsyncHandshake([self = s.shared_from_this()](Error error) {
      if (error) return self->Gone();
      if (!self->gone_) self->Read();
    });
  });
}

void HttpSession::Finish(bool now) {
  Post([now](HttpSession& s) {
    s.keep_alive_ = false;
    if (now || !s.answering_) s.Gone();
  });
}

void HttpSession::Watch(std::function<void(bool)> on_written, std::function<void()> on_gone) {
  Post([w = std::move(on_written), g = std::move(on_gone)](HttpSession& s) mutable {
    s.on_written_ = std::move(w);
    s.on_gone_ = std::move(g);
    if (s.gone_) s.TellGone();
  });
}

void HttpSession::Respond(HttpResponse response) {
  Post([r = std::move(response)](HttpSession& s) mutable {
    std::string head = s.Head(r);
    absl::StrAppend(&head, "Content-Length: ", r.body.size(), "\r\n\r\n");
    s.Send(std::move(head) + r.body, &HttpSession::Answered);
  });
}

void HttpSession::BeginStream(HttpResponse response) {
  Post([r = std::move(response)](HttpSession& s) mutable {
    if (!s.chunked_) s.keep_alive_ = false;  // HTTP/1.0: the end of the connection ends the body
    std::string head = s.Head(r);
    absl::StrAppend(&head, s.chunked_ ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n",
                    s.Chunk(r.body));
    s.Send(std::move(head), &HttpSession::TellWritten);
  });
}

void HttpSession::Write(std::string piece) {
  Post([p = std::move(piece)](HttpSession& s) { s.Send(s.Chunk(p), &HttpSession::TellWritten); });
}

void HttpSession::EndStream() {
  Post([](HttpSession& s) { s.Send(s.chunked_ ? "0\r\n\r\n" : "", &HttpSession::Answered); });
}

void HttpSession::Abort() {
  Post([](HttpSession& s) { s.Gone(); });
}

void HttpSession::SetDeadline(absl::Duration after) {
  timer_.cancel();
  if (after == absl::InfiniteDuration()) return;
  timer_.expires_after(absl::ToChronoNanoseconds(after));
  timer_.async_wait([self = shared_from_this()](Error error) {
    if (!error) self->Gone();
  });
}

void HttpSession::Read() {
  answering_ = false;
  parser_.emplace();
  parser_->header_limit(kMaxHeaderBytes);
  parser_->body_limit(owner_->options().max_body_bytes);
  SetDeadline(owner_->options().read_timeout);
  http::async_read_header(
      stream_, buffer_, *parser_, [self = shared_from_this()](Error error, size_t) {
        if (error) return self->ReadFailed(error);
        self->TakeHead();
        const auto codings = self->request_.Headers("transfer-encoding");
        if (codings.size() > 1 ||
            (codings.size() == 1 && !absl::EqualsIgnoreCase(codings[0], "chunked"))) {
          return self->Refuse(
              PlainError(501, "the one transfer coding here is chunked", "unimplemented"));
        }
        if (auto refusal = self->owner_->Refuse(self->request_); refusal.has_value()) {
          return self->Refuse(*std::move(refusal));
        }
        if (!absl::EqualsIgnoreCase(self->request_.Header("expect"), "100-continue")) {
          return self->ReadBody();
        }
        self->Send("HTTP/1.1 100 Continue\r\n\r\n", &HttpSession::ReadBody);
      });
}

void HttpSession::TakeHead() {
  const auto& message = parser_->get();
  request_ = HttpRequest();
  request_.peer = peer_;
  request_.method = Text(message.method_string());
  request_.path = Text(message.target());
  if (const size_t query = request_.path.find('?'); query != std::string::npos) {
    request_.path.resize(query);
  }
  for (const auto& field : message) {
    request_.headers.emplace_back(absl::AsciiStrToLower(Text(field.name_string())),
                                  Text(field.value()));
  }
  chunked_ = message.version() >= 11;
  keep_alive_ = message.keep_alive() && !owner_->stopping();
}

void HttpSession::ReadBody() {
  SetDeadline(owner_->options().read_timeout);
  http::async_read(stream_, buffer_, *parser_, [self = shared_from_this()](Error error, size_t) {
    if (error) return self->ReadFailed(error);
    self->Dispatch();
  });
}

void HttpSession::ReadFailed(Error error) {
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
    response =
        PlainError(400, absl::StrCat("not an HTTP request: ", error.message()), "invalid_request");
  } else {
    return Gone();
  }
  Refuse(std::move(response));
}

void HttpSession::Refuse(HttpResponse response) {
  // The rest of what the client sends is not read: the connection has no next request.
  keep_alive_ = false;
  answering_ = true;
  Respond(std::move(response));
}

void HttpSession::Dispatch() {
  timer_.cancel();
  request_.body = std::move(parser_->get().body());
  parser_.reset();
  answering_ = true;
  WatchForEnd();
  owner_->Handle(shared_from_this());
}

void HttpSession::WatchForEnd() {
  if (watching_ || buffer_.size() > 0) return;
  watching_ = true;
  stream_.async_read_some(buffer_.prepare(kReadBytes),
                          [self = shared_from_this()](Error error, size_t n) {
                            self->watching_ = false;
                            if (error) return self->Gone();
                            if (self->closing_) return self->Discard();
                            self->buffer_.commit(n);
                            if (!self->answering_) self->Read();
                          });
}

std::string HttpSession::Head(const HttpResponse& response) const {
  const auto reason = http::obsolete_reason(http::int_to_status(response.status));
  std::string head = absl::StrCat(
      "HTTP/1.1 ", response.status, " ", Text(reason), "\r\nContent-Type: ", response.content_type,
      "\r\nCache-Control: no-store\r\n", keep_alive_ ? "" : "Connection: close\r\n");
  for (const auto& [name, value] : response.headers) {
    absl::StrAppend(&head, name, ": ", value, "\r\n");
  }
  return head;
}

std::string HttpSession::Chunk(const std::string& piece) const {
  if (!chunked_ || piece.empty()) return piece;  // an empty chunk would end the body
  return absl::StrCat(absl::Hex(piece.size()), "\r\n", piece, "\r\n");
}

void HttpSession::Send(std::string bytes, Then then) {
  if (gone_) return;
  out_ = std::move(bytes);
  SetDeadline(owner_->options().write_timeout);
  boost::asio::async_write(stream_, boost::asio::buffer(out_),
                           [self = shared_from_this(), then](Error error, size_t) {
                             if (error) return self->Gone();
                             if (self->gone_) return;
                             self->timer_.cancel();
                             (self.get()->*then)();
                           });
}

void HttpSession::TellWritten() {
  if (on_written_) on_written_(true);
}

void HttpSession::TellGone() {
  auto gone = std::exchange(on_gone_, nullptr);
  on_written_ = nullptr;
  if (gone) gone();
}

void HttpSession::Answered() {
  on_written_ = nullptr;
  on_gone_ = nullptr;
  request_ = HttpRequest();
  if (!keep_alive_ || owner_->stopping()) return Linger();
  answering_ = false;
  if (buffer_.size() > 0 && !watching_) return Read();
  SetDeadline(owner_->options().idle_timeout);  // for the next request's first byte
  WatchForEnd();
}

void HttpSession::Linger() {
  answering_ = false;
  closing_ = true;
  SetDeadline(kLinger);
  const auto close = [self = shared_from_this()](Error) {
    Error ignored;
    self->stream_.socket().shutdown(boost::asio::socket_base::shutdown_send, ignored);
    self->Discard();
  };
  if (stream_.encrypted()) return stream_.AsyncShutdown(close);
  close({});
}

void HttpSession::Discard() {
  if (gone_ || watching_) return;  // the pending read comes here too
  buffer_.clear();
  stream_.socket().async_read_some(buffer_.prepare(kReadBytes),
                                   [self = shared_from_this()](Error error, size_t) {
                                     if (error) return self->Gone();
                                     self->Discard();
                                   });
}

void HttpSession::Gone() {
  if (std::exchange(gone_, true)) return;
  timer_.cancel();
  Error ignored;
  stream_.socket().close(ignored);
  TellGone();
}

}  // namespace tessera
