// The HTTP server's limits in time, with limits that a test can wait for.
#include "server/http/http_server.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/server/certificates.h"
#include "tests/server/http_client.h"

namespace tessera {
namespace {

struct Served {
  explicit Served(HttpServerOptions options) {
    const auto gate = [](const HttpRequest& head) -> std::optional<HttpResponse> {
      if (head.Header("x-no").empty()) return std::nullopt;
      HttpResponse response;
      response.status = 403;
      return response;
    };
    auto started =
        HttpServer::Start(*ParseAddress("127.0.0.1:0"), options, gate, [](auto exchange) {
          HttpResponse response;
          response.body = exchange->request().body;
          exchange->Respond(std::move(response));
        });
    EXPECT_TRUE(started.ok()) << started.status();
    server = *std::move(started);
    address = absl::StrCat("127.0.0.1:", server->port());
  }
  std::unique_ptr<HttpServer> server;
  std::string address;
};

HttpServerOptions Impatient() {
  HttpServerOptions options;
  options.read_timeout = options.handshake_timeout = options.idle_timeout = absl::Milliseconds(100);
  return options;
}

constexpr absl::Duration kSoon = absl::Seconds(8);

TEST(HttpServerTest, SlowHeadersAreCutOff) {
  Served served(Impatient());
  HttpClient client(served.address);
  client.Send("GET / HTTP/1.1\r\nHost: t\r\nX: ");
  EXPECT_TRUE(client.ends_within(kSoon));
}

// A byte now and then does not buy time.
TEST(HttpServerTest, TrickledHeadersAreCutOff) {
  Served served(Impatient());
  HttpClient client(served.address);
  client.Send("GET / HTTP/1.1\r\nX: ");
  for (int i = 0; i < 20; ++i) {
    client.Send("x");
    absl::SleepFor(absl::Milliseconds(20));
  }
  client.Send("\r\n\r\n");
  EXPECT_EQ(client.Read().status, 0);
}

TEST(HttpServerTest, SlowBodiesAreCutOff) {
  Served served(Impatient());
  HttpClient client(served.address);
  client.Send("POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf of it");
  EXPECT_TRUE(client.ends_within(kSoon));
}

TEST(HttpServerTest, IdleConnectionsAreClosed) {
  Served served(Impatient());
  HttpClient client(served.address);
  EXPECT_EQ(client.Get("/").status, 200);
  EXPECT_TRUE(client.ends_within(kSoon));
}

TEST(HttpServerTest, HandshakesThatDoNotComeAreCutOff) {
  TestCertificates certificates;
  const auto pair = certificates.Make("server");
  const auto tls = TlsSource::Open({pair.cert, pair.key, ""});
  ASSERT_TRUE(tls.ok()) << tls.status();
  HttpServerOptions options = Impatient();
  options.read_timeout = absl::Seconds(60);
  options.tls = tls->get();
  Served served(options);
  HttpClient client(served.address);
  client.Send("\x16\x03\x01");
  EXPECT_TRUE(client.ends_within(kSoon));
}

TEST(HttpServerTest, ARefusedRequestsBodyIsNotReadNorAskedFor) {
  Served served(HttpServerOptions{});
  for (const char* header : {"", "Expect: 100-continue\r\n"}) {
    HttpClient client(served.address);
    client.Send(
        absl::StrCat("POST / HTTP/1.1\r\nX-No: 1\r\nContent-Length: 1000000\r\n", header, "\r\n"));
    EXPECT_EQ(client.Read().status, 403);
    EXPECT_TRUE(client.AtEnd());
  }
}

// A request after one that ends the connection is not served.
TEST(HttpServerTest, NothingIsReadAfterTheLastRequest) {
  Served served(HttpServerOptions{});
  HttpClient client(served.address);
  client.Send("GET / HTTP/1.1\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(client.Read().status, 200);
  client.Send("GET / HTTP/1.1\r\n\r\n");
  EXPECT_EQ(client.Read().status, 0);
}

}  // namespace
}  // namespace tessera
