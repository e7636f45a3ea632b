#include "server/net/https_client.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <optional>
#include <utility>  // Boost.Asio 1.74 forgets it

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "base/clock.h"
#include "base/version.h"
#include "boost/asio.hpp"
#include "boost/asio/ssl.hpp"
#include "boost/beast/core/flat_buffer.hpp"
#include "boost/beast/http.hpp"

namespace tessera {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using Error = boost::system::error_code;
using Tcp = asio::ip::tcp;

// How soon a passed deadline or a cancelled caller is noticed.
constexpr absl::Duration kTurn = absl::Milliseconds(20);
constexpr uint32_t kMaxHeaderBytes = 16 << 10;

// Returns the system's certificate file. OpenSSL, linked as an archive, knows the path on the
// build machine only. The paths are those of Debian and Ubuntu, of Fedora, and of Alpine.
std::string SystemCertificates() {
  const char* named = std::getenv(X509_get_default_cert_file_env());
  if (named != nullptr) return named;
  for (const char* file : {"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
                           "/etc/ssl/cert.pem"}) {
    if (access(file, R_OK) == 0) return file;
  }
  return "";
}

Tcp::endpoint Endpoint(const IpAddress& address, int port) {
  asio::ip::address_v6::bytes_type bytes;
  std::copy(address.bytes.begin(), address.bytes.end(), bytes.begin());
  const asio::ip::address_v6 v6(bytes);
  if (!address.is_v4()) return {v6, static_cast<uint16_t>(port)};
  return {asio::ip::make_address_v4(asio::ip::v4_mapped, v6), static_cast<uint16_t>(port)};
}

// One connection and the one exchange on it.
class Exchange {
 public:
  Exchange(const HttpsUrl& url, const HttpsLimits& limits, asio::ssl::context& tls)
      : url_(url), limits_(limits), stream_(io_, tls) {}

  // Returns kOk, or why there is no encrypted connection to the URL's host.
  HttpsReply Connect(const IpAddress& address);
  HttpsReply Get();

 private:
  // Starts an operation and runs it until it ends, at `until` at the latest.
  template <class Start>
  Error Run(absl::Time until, Start start);
  HttpsReply Failed(FetchOutcome outcome, absl::string_view during, const Error& error) const;
  bool ExpectHost();  // requires the host's name or address in the certificate

  const HttpsUrl& url_;
  const HttpsLimits& limits_;
  asio::io_context io_;
  asio::ssl::stream<Tcp::socket> stream_;
  std::optional<FetchOutcome> stopped_;  // why Run ended an operation
};

template <class Start>
Error Exchange::Run(absl::Time until, Start start) {
  std::optional<Error> result;
  start([&result](Error error, auto&&...) { result = error; });
  io_.restart();
  while (!result.has_value()) {
    io_.run_for(absl::ToChronoMilliseconds(kTurn));
    if (result.has_value() || stopped_.has_value()) continue;
    if (limits_.cancelled()) stopped_ = FetchOutcome::kCancelled;
    if (SteadyNow() >= until) {
      stopped_ = until < limits_.deadline ? FetchOutcome::kUnreachable : FetchOutcome::kTimeout;
    }
    Error ignored;
    if (stopped_.has_value()) stream_.next_layer().close(ignored);  // ends the operation
  }
  return *result;
}

HttpsReply Exchange::Failed(FetchOutcome outcome, absl::string_view during,
                            const Error& error) const {
  HttpsReply reply;
  reply.outcome = stopped_.value_or(outcome);
  reply.detail = absl::StrCat(during, ": ", error.message());
  return reply;
}

bool Exchange::ExpectHost() {
  SSL* ssl = stream_.native_handle();
  if (url_.literal.has_value()) {
    return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), url_.host.c_str()) == 1;
  }
  SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  return SSL_set_tlsext_host_name(ssl, url_.host.c_str()) == 1 &&
         SSL_set1_host(ssl, url_.host.c_str()) == 1;
}

HttpsReply Exchange::Connect(const IpAddress& address) {
  const absl::Time until = std::min(limits_.deadline, SteadyNow() + limits_.connect_timeout);
  const std::string where = ToString(address);
  Error error = Run(until, [&](auto handler) {
    stream_.next_layer().async_connect(Endpoint(address, url_.port), std::move(handler));
  });
  if (error) return Failed(FetchOutcome::kUnreachable, absl::StrCat("connect to ", where), error);
  TESSERA_CHECK(ExpectHost());
  error = Run(until, [&](auto handler) {
    stream_.async_handshake(asio::ssl::stream_base::client, std::move(handler));
  });
  if (error) {
    const int64_t verified = SSL_get_verify_result(stream_.native_handle());
    return Failed(
        FetchOutcome::kUntrusted,
        absl::StrCat("TLS handshake with ", where,
                     verified == X509_V_OK
                         ? ""
                         : absl::StrCat(" (", X509_verify_cert_error_string(verified), ")")),
        error);
  }
  HttpsReply reply;
  reply.outcome = FetchOutcome::kOk;
  return reply;
}

HttpsReply Exchange::Get() {
  http::request<http::empty_body> request(http::verb::get, url_.target, 11);
  request.set(http::field::host, url_.HostHeader());
  request.set(http::field::user_agent, absl::StrCat("tesserad/", Version()));
  request.set(http::field::accept, "image/jpeg, image/png, image/webp");
  request.set(http::field::accept_encoding, "identity");
  request.set(http::field::connection, "close");
  Error error = Run(limits_.deadline,
                    [&](auto handler) { http::async_write(stream_, request, std::move(handler)); });
  if (error) return Failed(FetchOutcome::kBroken, "sending the request", error);

  boost::beast::flat_buffer buffer;
  http::response_parser<http::string_body> parser;
  parser.header_limit(kMaxHeaderBytes);
  parser.body_limit(static_cast<uint64_t>(limits_.max_body_bytes));
  error = Run(limits_.deadline, [&](auto handler) {
    http::async_read_header(stream_, buffer, parser, std::move(handler));
  });
  HttpsReply reply;
  const auto failed = [&](absl::string_view during) {
    const bool large = error == http::error::body_limit;
    return Failed(large ? FetchOutcome::kTooLarge : FetchOutcome::kBroken, during, error);
  };
  if (error) return failed("reading the answer's head");
  reply.status = static_cast<int>(parser.get().result_int());
  if (reply.status != 200) {
    const auto location = parser.get()[http::field::location];
    reply.outcome = FetchOutcome::kStatus;
    reply.location.assign(location.data(), location.size());
    reply.detail = absl::StrCat("status ", reply.status);
    return reply;
  }
  if (!parser.is_done()) {
    error = Run(limits_.deadline, [&](auto handler) {
      http::async_read(stream_, buffer, parser, std::move(handler));
    });
    if (error) return failed("reading the answer's body");
  }
  reply.outcome = FetchOutcome::kOk;
  reply.body = std::move(parser.get().body());
  return reply;
}

}  // namespace

absl::StatusOr<HttpsClient> HttpsClient::Open(const std::string& ca_file) {
  const std::shared_ptr<SSL_CTX> tls(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  TESSERA_CHECK(tls != nullptr);
  TESSERA_CHECK(SSL_CTX_set_min_proto_version(tls.get(), TLS1_2_VERSION) == 1);
  SSL_CTX_set_verify(tls.get(), SSL_VERIFY_PEER, nullptr);
  constexpr unsigned char kHttp[] = "\x08http/1.1";
  TESSERA_CHECK(SSL_CTX_set_alpn_protos(tls.get(), kHttp, sizeof(kHttp) - 1) == 0);
  ERR_clear_error();
  const std::string file = ca_file.empty() ? SystemCertificates() : ca_file;
  if (file.empty()) {
    return absl::FailedPreconditionError(
        "the system's certificates were not found (ca-certificates, or SSL_CERT_FILE): name a "
        "file");
  }
  if (SSL_CTX_load_verify_file(tls.get(), file.c_str()) != 1) {
    const char* reason = ERR_reason_error_string(ERR_peek_last_error());
    ERR_clear_error();
    return absl::FailedPreconditionError(
        absl::StrCat(file, ": no certificates can be read from it",
                     reason == nullptr ? "" : absl::StrCat(" (", reason, ")")));
  }
  return HttpsClient(tls);
}

HttpsReply HttpsClient::Get(const HttpsUrl& url, const std::vector<IpAddress>& addresses,
                            const HttpsLimits& limits) const {
  TESSERA_CHECK(!addresses.empty());
  HttpsReply reply;
  try {                          // Asio throws if the process has no file descriptor left
    SSL_CTX_up_ref(tls_.get());  // the wrapper releases its reference
    asio::ssl::context context(tls_.get());
    for (const IpAddress& address : addresses) {
      Exchange exchange(url, limits, context);
      reply = exchange.Connect(address);
      if (reply.outcome == FetchOutcome::kOk) return exchange.Get();
      if (reply.outcome == FetchOutcome::kCancelled || SteadyNow() >= limits.deadline) break;
    }
  } catch (const std::exception& error) {
    reply.outcome = FetchOutcome::kUnreachable;
    reply.detail = error.what();
  }
  return reply;
}

}  // namespace tessera
