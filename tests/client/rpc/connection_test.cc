// How the client's commands connect: encryption, certificates, and the token they show.
#include "client/rpc/connection.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "gmock/gmock.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "tessera/v1/tokenizer.grpc.pb.h"
#include "tests/client/run_command.h"
#include "tests/server/certificates.h"
#include "tests/server/server_testing.h"

namespace tessera::client {
namespace {

using testing::HasSubstr;

// Answers with the authorization header that came.
class Echo final : public v1::Tokenizer::Service {
 public:
  grpc::Status Tokenize(grpc::ServerContext* context, const v1::TokenizeRequest*,
                        v1::TokenizeResponse* response) override {
    for (const auto& [name, value] : context->client_metadata()) {
      if (name == "authorization") {
        response->add_ids(1);
        response->add_pieces(std::string(value.data(), value.size()));
      }
    }
    return grpc::Status::OK;
  }
};

class ClientEndpoint : public testing::Test {
 protected:
  ~ClientEndpoint() override { unsetenv("TESSERA_TOKEN"); }

  void Serve(const std::shared_ptr<grpc::ServerCredentials>& credentials) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.RegisterService(&echo_);
    builder.AddListeningPort("127.0.0.1:0", credentials, &port);
    server_ = builder.BuildAndStart();
    TESSERA_CHECK(server_ != nullptr);
    address_ = absl::StrCat("--address=127.0.0.1:", port);
  }
  void ServeTls(grpc_ssl_client_certificate_request_type ask) {
    const auto pair = certificates_.Make("server");
    grpc::SslServerCredentialsOptions options(ask);
    options.pem_root_certs = ReadAnyFile(certificates_.ca());
    options.pem_key_cert_pairs.push_back({ReadAnyFile(pair.key), ReadAnyFile(pair.cert)});
    Serve(grpc::SslServerCredentials(options));
  }
  Outcome Tokenize(Args more) {
    Args args = {"tokenize", address_, "--text=x", "--timeout=10s"};
    args.insert(args.end(), more.begin(), more.end());
    return RunCommand(args);
  }
  std::string ca() const { return "--tls_ca=" + certificates_.ca(); }

  TestCertificates certificates_, strangers_;
  Echo echo_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

TEST_F(ClientEndpoint, Encrypts) {
  ServeTls(GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  EXPECT_EQ(Tokenize({ca()}).code, 0);
  EXPECT_EQ(Tokenize({}).code, 1);
  EXPECT_EQ(Tokenize({"--tls_ca=" + strangers_.ca()}).code, 1);
  EXPECT_EQ(Tokenize({ca(), "--tls_name=localhost"}).code, 0);
  EXPECT_EQ(Tokenize({ca(), "--tls_name=elsewhere.example"}).code, 1);
}

TEST_F(ClientEndpoint, ShowsItsCertificate) {
  ServeTls(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  const auto pair = certificates_.Make("client");
  EXPECT_EQ(Tokenize({ca(), "--tls_cert=" + pair.cert, "--tls_key=" + pair.key}).code, 0);
  EXPECT_EQ(Tokenize({ca()}).code, 1);
}

TEST_F(ClientEndpoint, ShowsTheToken) {
  Serve(grpc::InsecureServerCredentials());
  EXPECT_EQ(Tokenize({}).out, "");
  EXPECT_THAT(Tokenize({"--token_file=" + WriteFile("token", "  abc\n")}).out,
              HasSubstr("Bearer abc\n"));
  setenv("TESSERA_TOKEN", "from-environment", 1);
  EXPECT_THAT(Tokenize({}).out, HasSubstr("Bearer from-environment\n"));
  // The option takes precedence over the environment.
  EXPECT_THAT(Tokenize({"--token_file=" + WriteFile("token", "abc")}).out,
              HasSubstr("Bearer abc\n"));
}

TEST_F(ClientEndpoint, TokensDoNotTravelInTheClear) {
  const std::string file = "--token_file=" + WriteFile("token", "abc");
  const Args kRemote = {"health", "--address=192.0.2.1:1", "--timeout=1ms"};
  Args args = kRemote;
  args.push_back(file);
  const Outcome refused = RunCommand(args);
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr("would travel unencrypted to 192.0.2.1:1"));
  args.push_back("--allow_plaintext");
  EXPECT_EQ(RunCommand(args).code, 1);  // connects, and fails
  args = kRemote;
  args.push_back(file);
  args.push_back(ca());
  EXPECT_EQ(RunCommand(args).code, 1);
  args = {"health", "--address=127.0.0.1.example.com:1", "--timeout=1ms", file};
  EXPECT_EQ(RunCommand(args).code, 2);
  setenv("TESSERA_TOKEN", "abc", 1);
  EXPECT_THAT(RunCommand(kRemote).err, HasSubstr("$TESSERA_TOKEN: the token would travel"));
}

TEST_F(ClientEndpoint, UsageErrorsNameTheOption) {
  const std::pair<Args, const char*> kCases[] = {
      {{"--tls_cert=x"}, "--tls_cert and --tls_key"},
      {{"--tls_cert=x", "--tls_key=y"}, "need --tls_ca"},
      {{"--tls_name=x"}, "need --tls_ca"},
      {{"--tls_ca=/nonexistent"}, "--tls_ca: cannot read /nonexistent"},
      {{"--token_file=/nonexistent"}, "--token_file: cannot read /nonexistent"},
      {{"--token_file=" + WriteFile("two", "a b")}, "want one token of visible characters"},
      {{"--token_file=" + WriteFile("lines", "a\r\nX: y")}, "want one token"},
      {{"--token_file=" + WriteFile("blank", " \n")}, "want one token"},
  };
  for (const auto& [more, message] : kCases) {
    Args args = {"health", "--address=127.0.0.1:1", "--timeout=1ms"};
    args.insert(args.end(), more.begin(), more.end());
    const Outcome outcome = RunCommand(args);
    EXPECT_EQ(outcome.code, 2) << message;
    EXPECT_THAT(outcome.err, HasSubstr(message));
  }
  EXPECT_THAT(RunCommand({"health", "--address=unix:/x", ca()}).err,
              HasSubstr("a Unix socket is not encrypted"));
}

}  // namespace
}  // namespace tessera::client
