// Encryption on every listener: who gets in, what is negotiated, and certificates that change.
#include "server/access/tls.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "tests/server/certificates.h"
#include "tests/server/http_client.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using testing::HasSubstr;

struct ReadTlsTest : testing::Test {
  std::string Error(const TlsPaths& paths) {
    const auto read = ReadTls(paths);
    EXPECT_FALSE(read.ok());
    return std::string(read.status().message());
  }
  TestCertificates certificates;
  TestCertificates::Pair pair = certificates.Make("server");
};

TEST_F(ReadTlsTest, NamesTheFileThatIsWrong) {
  const auto other = certificates.Make("other");
  EXPECT_THAT(Error({"/nonexistent", pair.key, ""}), HasSubstr("/nonexistent"));
  EXPECT_THAT(Error({certificates.Path(""), pair.key, ""}), HasSubstr(certificates.Path("")));
  EXPECT_THAT(Error({pair.key, pair.key, ""}), HasSubstr("server.key: no certificate"));
  EXPECT_THAT(Error({pair.cert, pair.cert, ""}), HasSubstr("server.pem: no private key"));
  EXPECT_THAT(Error({pair.cert, other.key, ""}), HasSubstr("other.key: not the key of"));
  EXPECT_THAT(Error({pair.cert, pair.key, pair.key}), HasSubstr("server.key: no certificate"));
}

TEST_F(ReadTlsTest, RefusesHalfAFile) {
  const std::string whole = ReadAnyFile(pair.cert);
  certificates.Write("half.pem", whole + whole.substr(0, whole.size() / 2));
  EXPECT_THAT(Error({certificates.Path("half.pem"), pair.key, ""}), HasSubstr("half.pem"));
}

// It must not ask at a terminal either.
TEST_F(ReadTlsTest, RefusesAnEncryptedKey) {
  certificates.Write("encrypted.key",
                     "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
                     "MIIBvTBXBgkqhkiG9w0BBQ0wSjApBgkqhkiG9w0BBQwwHAQI\n"
                     "-----END ENCRYPTED PRIVATE KEY-----\n");
  EXPECT_THAT(Error({pair.cert, certificates.Path("encrypted.key"), ""}),
              HasSubstr("encrypted.key: no private key"));
}

TEST_F(ReadTlsTest, TellsWhenTheCertificateExpires) {
  const auto expired = certificates.Make("expired", -absl::Minutes(1));
  EXPECT_LT((*ReadTls({expired.cert, expired.key, ""}))->not_after, absl::Now());
  const absl::Duration left = (*ReadTls({pair.cert, pair.key, ""}))->not_after - absl::Now();
  EXPECT_GT(left, absl::Minutes(50));
  EXPECT_LE(left, absl::Hours(1));
}

// A daemon with TLS, and clients of both kinds.
class TlsTest : public testing::Test {
 protected:
  void Serve(bool ask_clients) {
    server_ = std::make_unique<TestServer>([&](ServerConfig* c) {
      c->http_listen = "127.0.0.1:0";
      c->tls = {server_pair_.cert, server_pair_.key, ask_clients ? certificates_.ca() : ""};
    });
  }
  HttpTls Http(const TestCertificates::Pair& client = {}) const {
    return {certificates_.ca(), client.cert, client.key};
  }
  HttpClient Connect(const HttpTls& tls) const { return {server_->daemon().http_address(), tls}; }

  // The status of a call, and the name in the certificate that the server showed.
  std::pair<grpc::StatusCode, std::string> Call(const std::string& address,
                                                std::shared_ptr<grpc::ChannelCredentials> with) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    const auto channel = grpc::CreateCustomChannel(address, with, arguments);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    grpc::Status status;
    if (address == server_->daemon().admin_address()) {
      v1::GetLoadResponse response;
      status = v1::Control::NewStub(channel)->GetLoad(&context, {}, &response);
    } else {
      v1::TokenizeResponse response;
      status = v1::Tokenizer::NewStub(channel)->Tokenize(&context, {}, &response);
    }
    std::string name;
    if (status.ok() && context.auth_context() != nullptr) {
      for (const auto& value : context.auth_context()->FindPropertyValues("x509_common_name")) {
        name.assign(value.data(), value.size());
      }
    }
    return {status.error_code(), name};
  }
  std::shared_ptr<grpc::ChannelCredentials> Grpc(const TestCertificates::Pair& client = {}) const {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = ReadAnyFile(certificates_.ca());
    if (!client.cert.empty()) {
      options.pem_cert_chain = ReadAnyFile(client.cert);
      options.pem_private_key = ReadAnyFile(client.key);
    }
    return grpc::SslCredentials(options);
  }
  std::vector<std::string> GrpcAddresses() const {
    return {server_->daemon().listen_address(), server_->daemon().admin_address()};
  }

  TestCertificates certificates_, strangers_;
  TestCertificates::Pair server_pair_ = certificates_.Make("server");
  std::unique_ptr<TestServer> server_;
};

constexpr auto kOk = grpc::StatusCode::OK;
constexpr auto kUnavailable = grpc::StatusCode::UNAVAILABLE;

TEST_F(TlsTest, EveryListenerIsEncrypted) {
  Serve(/*ask_clients=*/false);
  for (const std::string& address : GrpcAddresses()) {
    EXPECT_EQ(Call(address, Grpc()), std::make_pair(kOk, std::string("server")));
    EXPECT_EQ(Call(address, grpc::InsecureChannelCredentials()).first, kUnavailable);
    grpc::SslCredentialsOptions stranger;
    stranger.pem_root_certs = ReadAnyFile(strangers_.ca());
    EXPECT_EQ(Call(address, grpc::SslCredentials(stranger)).first, kUnavailable);
  }
  HttpClient client = Connect(Http());
  ASSERT_TRUE(client.connected());
  EXPECT_EQ(client.peer_name(), "server");
  EXPECT_EQ(client.alpn(), "http/1.1");
  EXPECT_EQ(client.Get("/health").status, 200);
  EXPECT_EQ(client.Get("/version").status, 200);  // on the same connection
  HttpClient plain(server_->daemon().http_address());
  EXPECT_EQ(plain.Get("/health").status, 0);
  EXPECT_THAT(server_->log().text(), HasSubstr(R"("tls":"on")"));
}

TEST_F(TlsTest, ClientsNeedACertificateOfTheirAuthority) {
  Serve(/*ask_clients=*/true);
  const auto client = certificates_.Make("client"), stranger = strangers_.Make("stranger");
  for (const std::string& address : GrpcAddresses()) {
    EXPECT_EQ(Call(address, Grpc(client)).first, kOk);
    EXPECT_EQ(Call(address, Grpc()).first, kUnavailable);
    EXPECT_EQ(Call(address, Grpc(stranger)).first, kUnavailable);
  }
  EXPECT_EQ(Connect(Http(client)).Get("/health").status, 200);
  EXPECT_EQ(Connect(Http()).Get("/health").status, 0);
  EXPECT_EQ(Connect(Http(stranger)).Get("/health").status, 0);
}

TEST_F(TlsTest, OldVersionsAndOtherProtocolsAreRefused) {
  Serve(/*ask_clients=*/false);
  HttpTls tls = Http();
  tls.max_version = TLS1_1_VERSION;
  EXPECT_FALSE(Connect(tls).connected());
  tls.max_version = TLS1_2_VERSION;
  EXPECT_EQ(Connect(tls).Get("/health").status, 200);
  tls = Http();
  tls.alpn = "h2";
  EXPECT_FALSE(Connect(tls).connected());
  tls.alpn = "";  // a client that knows no ALPN
  EXPECT_EQ(Connect(tls).Get("/health").status, 200);
}

TEST_F(TlsTest, AStreamEndsWhereTheClientCanTell) {
  Serve(/*ask_clients=*/false);
  HttpClient client = Connect(Http());
  const std::string body = R"({"messages":[{"role":"user","content":"hello"}],"stream":true})";
  client.Send(absl::StrCat("POST /v1/chat/completions HTTP/1.0\r\nContent-Length: ", body.size(),
                           "\r\n\r\n", body));
  auto output_queue = server_->engine().Wait(0).output_queue;
  output_queue->Put(TextEvent("Hi", {5}), SteadyNow());
  output_queue->Put(LastEvent(), SteadyNow());
  EXPECT_THAT(client.Read().body, HasSubstr("data: [DONE]\n\n"));
  EXPECT_TRUE(client.closed_cleanly());  // not cut off by somebody in between
}

TEST_F(TlsTest, ANewCertificateIsUsedWithoutARestart) {
  Serve(/*ask_clients=*/false);
  HttpClient before = Connect(Http());
  EXPECT_EQ(before.peer_name(), "server");
  const auto renewed = certificates_.Make("renewed");
  certificates_.Write("server.key", ReadAnyFile(renewed.key));
  certificates_.Write("server.pem", ReadAnyFile(renewed.cert));
  ASSERT_TRUE(Eventually([&] { return Connect(Http()).peer_name() == "renewed"; }));
  for (const std::string& address : GrpcAddresses()) {
    EXPECT_EQ(Call(address, Grpc()), std::make_pair(kOk, std::string("renewed")));
  }
  EXPECT_EQ(before.Get("/health").status, 200);  // the connection goes on
  EXPECT_GE(server_->daemon().metrics().Value(Metric::kReloads, {"tls", "ok"}), 1);
  EXPECT_THAT(server_->log().text(), HasSubstr("a changed file is in use"));
}

TEST_F(TlsTest, ABrokenNewPairKeepsTheOldOne) {
  Serve(/*ask_clients=*/true);
  const auto client = certificates_.Make("client");
  certificates_.Make("other");
  certificates_.Write("server.key", ReadAnyFile(certificates_.Path("other.key")));
  ASSERT_TRUE(Eventually([&] {
    return server_->daemon().metrics().Value(Metric::kReloads, {"tls", "failed"}) == 1;
  }));
  EXPECT_TRUE(Eventually([&] {  // the line comes after the count
    return absl::StrContains(server_->log().text(), "server.key: not the key of the certificate");
  }));
  EXPECT_EQ(Connect(Http(client)).Get("/health").status, 200);
  for (const std::string& address : GrpcAddresses()) {
    EXPECT_EQ(Call(address, Grpc(client)), std::make_pair(kOk, std::string("server")));
  }
  EXPECT_EQ(server_->daemon().metrics().Value(Metric::kReloads, {"tls", "ok"}), 0);
}

// Clients of a new authority are accepted at once, over gRPC and HTTP.
TEST_F(TlsTest, TheClientsAuthorityIsReadAgainToo) {
  Serve(/*ask_clients=*/true);
  const auto client = certificates_.Make("client"), stranger = strangers_.Make("stranger");
  const std::string roots = ReadAnyFile(certificates_.ca());  // of the server's own certificate
  certificates_.Write("roots.pem", roots);
  certificates_.Write("ca.pem", ReadAnyFile(strangers_.ca()));
  HttpTls tls = Http(stranger);
  tls.ca = certificates_.Path("roots.pem");
  ASSERT_TRUE(Eventually([&] { return Connect(tls).Get("/health").status == 200; }));
  tls.cert = client.cert;
  tls.key = client.key;
  EXPECT_EQ(Connect(tls).Get("/health").status, 0);
  grpc::SslCredentialsOptions options{roots, ReadAnyFile(stranger.key), ReadAnyFile(stranger.cert)};
  EXPECT_EQ(Call(server_->daemon().listen_address(), grpc::SslCredentials(options)).first, kOk);
  options.pem_private_key = ReadAnyFile(client.key);
  options.pem_cert_chain = ReadAnyFile(client.cert);
  EXPECT_EQ(Call(server_->daemon().listen_address(), grpc::SslCredentials(options)).first,
            kUnavailable);
}

TEST(TlsStartTest, BadFilesKeepTheDaemonFromStarting) {
  ServerConfig config;
  config.tls = {"/nonexistent/cert", "/nonexistent/key", ""};
  MemoryLogger log;
  const auto daemon = Daemon::Start(
      config, &log, [](const ServerConfig&, Observer*, Runtime*) { return absl::OkStatus(); }, "");
  ASSERT_FALSE(daemon.ok());
  EXPECT_THAT(std::string(daemon.status().message()), HasSubstr("--tls_cert: /nonexistent/cert"));
}

}  // namespace
}  // namespace tessera
