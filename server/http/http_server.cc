#include "server/http/http_server.h"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <atomic>
#include <thread>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "server/http/http_session.h"

namespace tessera {
namespace {

using boost::asio::ip::tcp;

std::string PeerName(const tcp::socket& socket) {
  boost::system::error_code error;
  const tcp::endpoint peer = socket.remote_endpoint(error);
  if (error) return "unknown";
  const bool v6 = peer.address().is_v6();
  return absl::StrCat(v6 ? "ipv6:[" : "ipv4:", peer.address().to_string(), v6 ? "]:" : ":",
                      peer.port());
}

}  // namespace

absl::string_view HttpRequest::Header(absl::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return "";
}

std::vector<absl::string_view> HttpRequest::Headers(absl::string_view name) const {
  std::vector<absl::string_view> values;
  for (const auto& [key, value] : headers) {
    if (key == name) values.push_back(value);
  }
  return values;
}

class HttpServer::Impl final : public HttpSessionOwner {
 public:
  Impl(const HttpServerOptions& options, Gate gate, Handler handler)
      : options_(options),
        gate_(std::move(gate)),
        handler_(std::move(handler)),
        acceptor_(context_) {}

  ~Impl() override { Stop(SteadyNow()); }

  absl::Status Listen(const Address& address) {
    boost::system::error_code error;
    tcp::resolver resolver(context_);
    const auto found =
        resolver.resolve(address.host, absl::StrCat(address.port), tcp::resolver::passive, error);
    if (error) return absl::InvalidArgumentError(absl::StrCat(address.text, ": ", error.message()));
    const tcp::endpoint endpoint = found.begin()->endpoint();
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(boost::asio::socket_base::max_listen_connections, error);
    if (error) {
      const std::string text = absl::StrCat(address.text, ": ", error.message());
      return error == boost::asio::error::address_in_use ? absl::AlreadyExistsError(text)
                                                         : absl::FailedPreconditionError(text);
    }
    port_ = acceptor_.local_endpoint().port();
    Accept();
    for (int i = 0; i < options_.threads; ++i) {
      threads_.emplace_back([this] { context_.run(); });
    }
    return absl::OkStatus();
  }

  int port() const { return port_; }

  void Stop(absl::Time deadline) {
    if (threads_.empty()) return;
    stopping_ = true;
    boost::asio::post(context_, [this] {
      boost::system::error_code ignored;
      acceptor_.close(ignored);
    });
    FinishAll(/*now=*/false);
    WaitForSessions(deadline);
    FinishAll(/*now=*/true);
    // Callbacks of closed connections are quick. A held exchange ends with its holder.
    WaitForSessions(SteadyNow() + absl::Seconds(1));
    context_.stop();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  // --- HttpSessionOwner
  const HttpServerOptions& options() const override { return options_; }
  bool stopping() const override { return stopping_.load(); }
  std::optional<HttpResponse> Refuse(const HttpRequest& head) override { return gate_(head); }
  void Handle(std::shared_ptr<HttpExchange> exchange) override { handler_(std::move(exchange)); }
  void OnSessionEnd() override {
    MutexLock lock(mutex_);
    if (--count_ == 0) none_.NotifyAll();
  }

 private:
  void Accept() {
    acceptor_.async_accept(boost::asio::make_strand(context_),
                           [this](boost::system::error_code error, auto socket) {
                             if (stopping_.load() || error == boost::asio::error::operation_aborted)
                               return;
                             if (!error) Begin(std::move(socket));
                             // Without descriptors, an immediate retry would be a busy loop.
                             if (error) std::this_thread::sleep_for(std::chrono::milliseconds(10));
                             Accept();
                           });
  }

  // TCP finds a vanished peer: by its probes if nothing is sent, else by missing acknowledgements.
  // (The latter also happens with a client that reads nothing, which is cancelled sooner.)
  void SetKeepalive(tcp::socket& socket) const {
    const auto whole_seconds = [](absl::Duration d) {
      return static_cast<int>(absl::ToInt64Seconds(absl::Ceil(d, absl::Seconds(1))));
    };
    constexpr int kProbes = 2;
    const std::tuple<int, int, int> values[] = {
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, whole_seconds(options_.keepalive_time)},
        {IPPROTO_TCP, TCP_KEEPINTVL, whole_seconds(options_.keepalive_timeout / kProbes)},
        {IPPROTO_TCP, TCP_KEEPCNT, kProbes},
        {IPPROTO_TCP, TCP_USER_TIMEOUT,
         static_cast<int>(
             absl::ToInt64Milliseconds(options_.keepalive_time + options_.keepalive_timeout))}};
    for (const auto& [level, name, value] : values) {
      // It fails only if the peer has gone already.
      setsockopt(socket.native_handle(), level, name, &value, sizeof(value));
    }
  }

  template <class Socket>
  void Begin(Socket socket) {
    boost::system::error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    tcp::socket plain(std::move(socket));
    SetKeepalive(plain);
    std::string peer = PeerName(plain);
    const std::shared_ptr<SSL_CTX> tls =
        options_.tls == nullptr ? nullptr : options_.tls->current()->http;
    std::shared_ptr<HttpSession> session;
    {
      MutexLock lock(mutex_);
      if (count_ < options_.max_connections) {
        ++count_;
        std::erase_if(sessions_, [](const auto& weak) { return weak.expired(); });
        session = std::make_shared<HttpSession>(std::move(plain), tls, std::move(peer), this);
        sessions_.push_back(session);
      }
    }
    if (session == nullptr) {
      if (tls != nullptr) return;  // an HTTP answer would cost a handshake
      static constexpr char kFull[] =
          "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
          "Content-Length: 0\r\n\r\n";
      plain.non_blocking(true, ignored);
      plain.write_some(boost::asio::buffer(kFull, sizeof(kFull) - 1), ignored);
      return;
    }
    session->Start();
  }

  void FinishAll(bool now) {
    std::vector<std::shared_ptr<HttpSession>> all;
    {
      MutexLock lock(mutex_);
      for (const auto& weak : sessions_) {
        if (auto session = weak.lock()) all.push_back(std::move(session));
      }
    }
    for (const auto& session : all) session->Finish(now);
  }

  void WaitForSessions(absl::Time deadline) {
    MutexLock lock(mutex_);
    while (count_ > 0 && none_.WaitUntil(mutex_, deadline)) {
    }
  }

  const HttpServerOptions options_;
  const Gate gate_;
  const Handler handler_;
  std::atomic<bool> stopping_{false};
  Mutex mutex_;
  CondVar none_;
  int count_ TESSERA_GUARDED_BY(mutex_) = 0;
  std::vector<std::weak_ptr<HttpSession>> sessions_ TESSERA_GUARDED_BY(mutex_);
  // Its destructor ends waiting sessions, which use the members above.
  boost::asio::io_context context_;
  tcp::acceptor acceptor_;
  int port_ = 0;
  std::vector<std::thread> threads_;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() = default;
int HttpServer::port() const { return impl_->port(); }
void HttpServer::Stop(absl::Time deadline) { impl_->Stop(deadline); }

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const Address& address,
                                                              const HttpServerOptions& options,
                                                              Gate gate, Handler handler) {
  if (!address.unix_path.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(address.text, ": HTTP is served on host:port only"));
  }
  auto impl = std::make_unique<Impl>(options, std::move(gate), std::move(handler));
  RETURN_IF_ERROR(impl->Listen(address));
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

}  // namespace tessera
