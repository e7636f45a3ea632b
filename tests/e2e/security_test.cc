// The real daemon with certificates and tokens, tested with tessera and with curl.
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "tests/e2e/child_server.h"
#include "tests/server/certificates.h"
#include "tests/server/server_testing.h"
#include "tests/support/paths.h"

namespace tessera {
namespace {

using testing::HasSubstr;

std::string Line(absl::string_view token, absl::string_view rest) {
  return absl::StrCat(HexDigest(Hasher().Add(token.data(), token.size()).Finish()), " ", rest,
                      "\n");
}

// The exit status of a shell command, and its output on both streams.
RunResult Shell(const std::string& command) {
  std::FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  RunResult result;
  char bytes[4096];
  for (size_t n; (n = fread(bytes, 1, sizeof(bytes), pipe)) > 0;) result.output.append(bytes, n);
  result.status = WEXITSTATUS(pclose(pipe));
  return result;
}

class SecurityTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    files_ = std::make_unique<TestCertificates>();
    server_pair_ = files_->Make("server");
    client_pair_ = files_->Make("client");
    files_->Write("tokens", Line("alices-token", "alice") + Line("bobs-token", "bob") +
                                Line("operators", "ops admin"));
    files_->Write("alice", "alices-token\n");
    files_->Write("ops", "operators\n");
    server_ = std::make_unique<ChildServer>(std::vector<std::string>{
        "--tls_cert=" + server_pair_.cert, "--tls_key=" + server_pair_.key,
        "--tls_client_ca=" + files_->ca(), "--token_file=" + files_->Path("tokens")});
  }
  static void TearDownTestSuite() {
    server_ = nullptr;
    files_ = nullptr;
  }

  static std::shared_ptr<grpc::Channel> Channel(const std::string& address) {
    return grpc::CreateChannel(
        address, grpc::SslCredentials({ReadAnyFile(files_->ca()), ReadAnyFile(client_pair_.key),
                                       ReadAnyFile(client_pair_.cert)}));
  }
  static Answer Ask(const std::string& token, const v1::GenerateRequest& request) {
    const auto stub = v1::Inference::NewStub(Channel(server_->listen()));
    grpc::ClientContext context;
    context.AddMetadata("authorization", "Bearer " + token);
    return Generate(*stub, request, &context);
  }
  // Runs tessera with the client's certificate.
  static RunResult Tessera(const std::string& command, const std::string& address,
                           const std::string& more) {
    return Shell(absl::StrCat(BinaryPath("tessera"), " ", command, " --address=", address,
                              " --tls_ca=", files_->ca(), " --tls_cert=", client_pair_.cert,
                              " --tls_key=", client_pair_.key, " ", more));
  }
  static RunResult Curl(const std::string& path, const std::string& more) {
    return Shell(absl::StrCat("curl -sS --max-time 20 -w ' %{http_code} %{http_version}' ",
                              "https://", server_->http(), path, " --cacert ", files_->ca(), " ",
                              more));
  }
  static std::string Certificate() {
    return absl::StrCat(" --cert ", client_pair_.cert, " --key ", client_pair_.key, " ");
  }
  static std::string Token(const std::string& token) {
    return absl::StrCat(" -H 'Authorization: Bearer ", token, "' ");
  }

  static std::unique_ptr<TestCertificates> files_;
  static TestCertificates::Pair server_pair_, client_pair_;
  static std::unique_ptr<ChildServer> server_;
};
std::unique_ptr<TestCertificates> SecurityTest::files_;
TestCertificates::Pair SecurityTest::server_pair_, SecurityTest::client_pair_;
std::unique_ptr<ChildServer> SecurityTest::server_;

// A tenant must not find another tenant's prompt in the cache: the time to the first token would
// reveal what the other one has asked.
TEST_F(SecurityTest, TenantsShareNoCache) {
  v1::GenerateRequest request = EvalRequest(EvalLines("questions.jsonl").front());
  request.mutable_cache()->set_salt("");
  const Answer first = Ask("alices-token", request);
  ASSERT_TRUE(first.finished.has_value()) << first.status.error_message();
  EXPECT_EQ(first.finished->usage().cached_tokens(), 0);
  const Answer other = Ask("bobs-token", request);
  ASSERT_TRUE(other.finished.has_value());
  EXPECT_EQ(other.finished->usage().cached_tokens(), 0);
  EXPECT_EQ(other.text, first.text);
  // Naming the other tenant's salt does not help either.
  request.mutable_cache()->set_salt("alice:");
  EXPECT_EQ(Ask("bobs-token", request).finished->usage().cached_tokens(), 0);
  const std::string kNoHit = "tessera_image_cache_hits_total 0\n";
  EXPECT_THAT(server_->HttpGet("/metrics"), HasSubstr(kNoHit));
  request.mutable_cache()->clear_salt();
  const Answer again = Ask("alices-token", request);
  ASSERT_TRUE(again.finished.has_value());
  EXPECT_GT(again.finished->usage().cached_tokens(), 0);
  // Another beginning, so that the image's tokens are computed again from its cached features.
  request.mutable_content(0)->set_text("Look. " + request.content(0).text());
  EXPECT_TRUE(Ask("alices-token", request).status.ok());
  EXPECT_THAT(server_->HttpGet("/metrics"), testing::Not(HasSubstr(kNoHit)));
}

TEST_F(SecurityTest, OurClientWorks) {
  const RunResult text =
      Tessera("tokenize", server_->listen(), "--text=hello --token_file=" + files_->Path("alice"));
  EXPECT_EQ(text.status, 0) << text.output;
  const RunResult nobody = Tessera("tokenize", server_->listen(), "--text=hello");
  EXPECT_EQ(nobody.status, 1);
  EXPECT_THAT(nobody.output, HasSubstr("UNAUTHENTICATED"));
  const RunResult health = Tessera("health", server_->listen(), "");
  EXPECT_EQ(health.output, "SERVING\n");
  const RunResult info = Tessera("info", server_->admin(), "--token_file=" + files_->Path("ops"));
  EXPECT_EQ(info.status, 0) << info.output;
  const RunResult forbidden =
      Tessera("info", server_->admin(), "--token_file=" + files_->Path("alice"));
  EXPECT_EQ(forbidden.status, 1);
  EXPECT_THAT(forbidden.output, HasSubstr("PERMISSION_DENIED"));
}

TEST_F(SecurityTest, CurlWorks) {
  if (Shell("curl --version").status != 0) GTEST_SKIP() << "curl is not installed";
  EXPECT_THAT(Curl("/health", Certificate()).output, HasSubstr(" 200 1.1"));
  EXPECT_NE(Curl("/health", "").status, 0);  // no certificate
  EXPECT_THAT(Curl("/v1/models", Certificate()).output, HasSubstr(" 401 1.1"));
  EXPECT_THAT(Curl("/v1/models", Certificate() + Token("alices-token")).output,
              HasSubstr(" 200 1.1"));
  EXPECT_THAT(Curl("/metrics", Certificate() + Token("alices-token")).output, HasSubstr(" 403 "));
  EXPECT_THAT(Curl("/metrics", Certificate() + Token("operators")).output, HasSubstr(" 200 "));
  const RunResult chat = Curl(
      "/v1/chat/completions",
      Certificate() + Token("alices-token") +
          R"(-N -d '{"messages":[{"role":"user","content":"Hi"}],"stream":true,"max_tokens":4}')");
  EXPECT_EQ(chat.status, 0) << chat.output;
  EXPECT_THAT(chat.output, HasSubstr("data: [DONE]"));
  EXPECT_THAT(chat.output, HasSubstr(" 200 1.1"));
}

TEST_F(SecurityTest, OldTlsIsRefusedOnEveryPort) {
  if (Shell("openssl version").status != 0) GTEST_SKIP() << "openssl is not installed";
  for (const std::string& address : {server_->listen(), server_->admin(), server_->http()}) {
    const std::string connect = absl::StrCat("openssl s_client -connect ", address, " -CAfile ",
                                             files_->ca(), " -cert ", client_pair_.cert, " -key ",
                                             client_pair_.key, " -verify_return_error </dev/null");
    const auto agreed = [&](const std::string& version) {
      return Shell(absl::StrCat(connect, " -tls1_", version)).output;
    };
    EXPECT_THAT(agreed("1 -cipher DEFAULT@SECLEVEL=0"), HasSubstr("Cipher is (NONE)")) << address;
    EXPECT_THAT(agreed("2"), HasSubstr("New, TLSv1.2, Cipher is")) << address;
    EXPECT_THAT(agreed("3"), HasSubstr("New, TLSv1.3, Cipher is")) << address;
  }
}

TEST_F(SecurityTest, TheLogAndTheFlagsHaveNoToken) {
  v1::GenerateRequest request = TextRequest("Hello");
  request.mutable_stopping()->set_max_tokens(2);
  EXPECT_TRUE(Ask("alices-token", request).status.ok());
  // The log line of a call is written after its answer has been sent.
  ASSERT_TRUE(
      Eventually([&] { return server_->log().find("\"tenant\":\"alice\"") != std::string::npos; }));
  for (const char* token : {"alices-token", "bobs-token", "operators"}) {
    EXPECT_THAT(server_->log(), testing::Not(HasSubstr(token)));
  }
}

}  // namespace
}  // namespace tessera
