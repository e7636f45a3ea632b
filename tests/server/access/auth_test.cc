// Bearer tokens on every door of a live daemon.
#include <future>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/observability/http_names.h"
#include "server/observability/rpc_names.h"
#include "tests/server/certificates.h"
#include "tests/server/http_client.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using testing::HasSubstr;
using testing::Not;
using Code = grpc::StatusCode;
using Json = nlohmann::json;

constexpr char kChat[] = "/v1/chat/completions";

std::string Line(absl::string_view token, absl::string_view rest) {
  return absl::StrCat(HexDigest(Hasher().Add(token.data(), token.size()).Finish()), " ", rest,
                      "\n");
}

std::string Body(const std::string& more = "") {
  return absl::StrCat(R"({"messages":[{"role":"user","content":"hello"}])", more, "}");
}

class AuthTest : public testing::Test {
 protected:
  AuthTest() {
    folder_.Write("tokens",
                  Line("alices-token", "alice") + Line("bobs-token", "bob") +
                      Line("slow", "slow requests_per_minute=2") +
                      Line("narrow", "narrow concurrent=2 max_tokens=7 policies=none,rtn") +
                      Line("operators", "ops admin"));
    server_ = std::make_unique<TestServer>([this](ServerConfig* c) {
      c->http_listen = "127.0.0.1:0";
      c->token_file = folder_.Path("tokens");
    });
  }

  // Any method, with an empty message, or the bytes of one.
  grpc::Status Call(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                    const std::string& token, const std::string& request = "",
                    std::string* response = nullptr) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
    const grpc::Slice slice(request);
    const grpc::ByteBuffer in(&slice, 1);
    grpc::ByteBuffer out;
    grpc::CompletionQueue queue;
    const auto call = grpc::GenericStub(channel).PrepareUnaryCall(&context, method, in, &queue);
    call->StartCall();
    grpc::Status status;
    call->Finish(&out, &status, nullptr);
    void* tag;
    bool ok;
    queue.Next(&tag, &ok);
    grpc::Slice bytes;
    if (response != nullptr && out.DumpToSingleSlice(&bytes).ok()) {
      response->assign(reinterpret_cast<const char*>(bytes.begin()), bytes.size());
    }
    return status;
  }
  Answer Generate(const std::string& token, const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    context.AddMetadata("authorization", "Bearer " + token);
    return tessera::Generate(server_->inference(), request, &context);
  }
  // Ends with `n`-th request's answer.
  void Finish(size_t n) { server_->engine().Wait(n).output_queue->Put(LastEvent(), SteadyNow()); }
  HttpReply Http(const std::string& method, const std::string& path, const std::string& token,
                 const std::string& body = "") {
    HttpClient client(server_->daemon().http_address());
    const std::string header =
        token.empty() ? "" : absl::StrCat("Authorization: Bearer ", token, "\r\n");
    client.Send(absl::StrCat(method, " ", path, " HTTP/1.1\r\n", header,
                             "Content-Length: ", body.size(), "\r\n\r\n", body));
    return client.Read();
  }
  double Refused(const char* reason) {
    return server_->daemon().metrics().Value(Metric::kRefusals, {reason});
  }

  TestCertificates folder_;
  std::unique_ptr<TestServer> server_;
};

// By the protocol's own list, so that no method can be forgotten.
TEST_F(AuthTest, EveryMethodNeedsAToken) {
  int methods = 0;
  for (const char* file :
       {"tessera/v1/inference.proto", "tessera/v1/tokenizer.proto", "tessera/v1/control.proto"}) {
    const auto* found = google::protobuf::DescriptorPool::generated_pool()->FindFileByName(file);
    ASSERT_NE(found, nullptr) << file;
    for (int s = 0; s < found->service_count(); ++s) {
      const auto* service = found->service(s);
      const bool admin = service->name() == "Control";
      const auto channel = admin ? server_->admin_channel() : server_->channel();
      for (int m = 0; m < service->method_count(); ++m) {
        const std::string name =
            absl::StrCat("/", service->full_name(), "/", service->method(m)->name());
        SCOPED_TRACE(name);
        ++methods;
        const ErrorView none = View(Call(channel, name, ""));
        EXPECT_EQ(none.code, Code::UNAUTHENTICATED);
        EXPECT_EQ(none.reason, "TOKEN_MISSING");
        EXPECT_EQ(View(Call(channel, name, "guess")).reason, "TOKEN_UNKNOWN");
        if (admin) {
          EXPECT_EQ(View(Call(channel, name, "alices-token")).reason, "NOT_ALLOWED");
        }
      }
    }
  }
  EXPECT_EQ(methods, static_cast<int>(RpcMethods().size()));
  EXPECT_EQ(server_->engine().count(), 0u);
}

TEST_F(AuthTest, HealthAndReflectionAreOpen) {
  std::string response;
  EXPECT_TRUE(Call(server_->channel(), "/grpc.health.v1.Health/Check", "", "", &response).ok());
  EXPECT_EQ(response, "\x08\x01");
  const std::string list("\x3a\x01*");  // ServerReflectionRequest{7: list_services}
  EXPECT_TRUE(Call(server_->channel(),
                   "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "", list,
                   &response)
                  .ok());
  EXPECT_THAT(response, HasSubstr("tessera.v1.Inference"));
}

TEST_F(AuthTest, OperatorsTokensControl) {
  EXPECT_TRUE(
      Call(server_->admin_channel(), "/tessera.v1.Control/GetServerInfo", "operators").ok());
  EXPECT_EQ(server_->engine().flushes, 0);
  EXPECT_TRUE(Call(server_->admin_channel(), "/tessera.v1.Control/FlushCache", "operators").ok());
  EXPECT_EQ(server_->engine().flushes, 1);
}

TEST_F(AuthTest, EveryHttpRouteButHealthNeedsAToken) {
  for (const std::string& route : HttpRoutes()) {
    SCOPED_TRACE(route);
    const std::string path = route == "other" ? "/no/such/path" : route;
    for (const char* method : {"GET", "POST"}) {
      const HttpReply reply = Http(method, path, "");
      if (route == "/health") {
        EXPECT_NE(reply.status, 401);
        continue;
      }
      EXPECT_EQ(reply.status, 401);
      EXPECT_EQ(reply.headers.at("www-authenticate"), "Bearer realm=\"tessera\"");
      EXPECT_EQ(Json::parse(reply.body)["error"]["code"], "token_missing");
      const HttpReply guessed = Http(method, path, "guess");
      EXPECT_EQ(guessed.status, 401);
      EXPECT_THAT(guessed.headers.at("www-authenticate"), HasSubstr("invalid_token"));
    }
  }
  EXPECT_EQ(Http("GET", "/v1/models", "alices-token").status, 200);
  EXPECT_EQ(Http("GET", "/no/such/path", "alices-token").status, 404);
  EXPECT_EQ(Http("GET", "/metrics", "alices-token").status, 403);
  EXPECT_EQ(Http("GET", "/metrics", "operators").status, 200);
}

TEST_F(AuthTest, AStrangersBodyIsNotRead) {
  HttpClient client(server_->daemon().http_address());
  client.Send(absl::StrCat("POST ", kChat, " HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n"));
  EXPECT_EQ(client.Read().status, 401);
  EXPECT_TRUE(client.AtEnd());
}

TEST_F(AuthTest, TwoAuthorizationHeadersAreRefused) {
  HttpClient client(server_->daemon().http_address());
  client.Send(
      "GET /v1/models HTTP/1.1\r\nAuthorization: Bearer alices-token\r\n"
      "Authorization: Bearer bobs-token\r\n\r\n");
  EXPECT_EQ(client.Read().status, 401);
}

TEST_F(AuthTest, TheRateHoldsOverBothDoors) {
  const std::string tokenize = R"({"prompt":"a"})";
  EXPECT_EQ(Http("POST", "/tokenize", "slow", tokenize).status, 200);
  EXPECT_TRUE(Call(server_->channel(), "/tessera.v1.Tokenizer/Tokenize", "slow").ok());
  const HttpReply limited = Http("POST", "/tokenize", "slow", tokenize);
  EXPECT_EQ(limited.status, 429);
  EXPECT_EQ(Json::parse(limited.body)["error"]["code"], "rate_limited");
  int seconds = 0;
  ASSERT_TRUE(absl::SimpleAtoi(limited.headers.at("retry-after"), &seconds));
  EXPECT_GE(seconds, 1);
  EXPECT_LE(seconds, 30);
  const ErrorView error = View(Call(server_->channel(), "/tessera.v1.Tokenizer/Tokenize", "slow"));
  EXPECT_EQ(error.code, Code::RESOURCE_EXHAUSTED);
  EXPECT_EQ(error.reason, "RATE_LIMITED");
  EXPECT_EQ(error.quota, "slow");
  ASSERT_TRUE(error.retry.has_value());
  EXPECT_GT(*error.retry, absl::ZeroDuration());
  EXPECT_EQ(Refused("rate"), 2);
  EXPECT_EQ(Http("GET", "/v1/models", "slow").status, 200);  // looking is free
}

TEST_F(AuthTest, AnswersAtOnceAreBounded) {
  auto first = std::async(std::launch::async, [&] { return Generate("narrow", TextRequest("a")); });
  server_->engine().Wait(0);
  EXPECT_EQ(Http("POST", kChat, "narrow", Body(R"(,"n":2,"temperature":1)")).status, 429);
  EXPECT_EQ(Http("POST", kChat, "narrow", Body(R"(,"n":3,"temperature":1)")).status, 403);
  auto second =
      std::async(std::launch::async, [&] { return Http("POST", kChat, "narrow", Body()); });
  server_->engine().Wait(1);
  const Answer third = Generate("narrow", TextRequest("c"));
  EXPECT_EQ(View(third.status).reason, "TOO_MANY_AT_ONCE");
  Finish(0);
  Finish(1);
  EXPECT_TRUE(first.get().status.ok());
  EXPECT_EQ(second.get().status, 200);
  // At once: who asks one thing after another never meets his own place.
  EXPECT_EQ(Http("POST", "/tokenize", "narrow", R"({"prompt":"a"})").status, 200);
  EXPECT_EQ(Http("POST", "/tokenize", "narrow", R"({"prompt":"a"})").status, 200);
}

TEST_F(AuthTest, TokensOfAnAnswerAreBounded) {
  EXPECT_EQ(Http("POST", kChat, "narrow", Body(R"(,"max_tokens":8)")).status, 403);
  v1::GenerateRequest request = TextRequest("a");
  request.mutable_stopping()->set_max_tokens(8);
  const ErrorView error = View(Generate("narrow", request).status);
  EXPECT_EQ(error.code, Code::PERMISSION_DENIED);
  EXPECT_THAT(error.message, HasSubstr("at most 7"));
  EXPECT_EQ(Refused("max_tokens"), 2);
  auto asked =
      std::async(std::launch::async, [&] { return Http("POST", kChat, "narrow", Body()); });
  EXPECT_EQ(server_->engine().Wait(0).request.stop.max_tokens, 7);  // where it did not say
  Finish(0);
  EXPECT_EQ(asked.get().status, 200);
}

TEST_F(AuthTest, PoliciesAreBounded) {
  const HttpReply reply =
      Http("POST", kChat, "narrow", Body(R"j(,"kv_policy":"window(sinks=4)+rtn(bits=4)")j"));
  EXPECT_EQ(reply.status, 403);
  EXPECT_THAT(reply.body, HasSubstr("may not use window; it may use: none, rtn"));
  EXPECT_EQ(Json::parse(reply.body)["error"]["param"], "kv_policy");
  EXPECT_EQ(Refused("policy"), 1);
}

TEST_F(AuthTest, CachesOfTenantsAreApart) {
  v1::GenerateRequest request = TextRequest("a");
  request.mutable_cache()->set_salt("theirs");
  std::vector<std::string> salts;
  for (const char* token : {"alices-token", "bobs-token", "alices-token"}) {
    const size_t n = salts.size();
    auto answer = std::async(std::launch::async, [&] { return Generate(token, request); });
    salts.push_back(server_->engine().Wait(n).request.salt);
    Finish(n);
    EXPECT_TRUE(answer.get().status.ok());
  }
  EXPECT_NE(salts[0], salts[1]);
  EXPECT_EQ(salts[0], salts[2]);
}

TEST_F(AuthTest, TheLogHasTheNameAndNeverTheToken) {
  auto answer =
      std::async(std::launch::async, [&] { return Generate("alices-token", TextRequest("a")); });
  Finish(0);
  EXPECT_TRUE(answer.get().status.ok());
  auto other =
      std::async(std::launch::async, [&] { return Http("POST", kChat, "bobs-token", Body()); });
  Finish(1);
  EXPECT_EQ(other.get().status, 200);
  Http("GET", "/v1/models", "guessed-token");
  Call(server_->channel(), "/tessera.v1.Tokenizer/Tokenize", "guessed-token");
  EXPECT_TRUE(Eventually([&] {
    const std::string log = server_->log().text();
    return absl::StrContains(log, R"("tenant":"alice")") &&
           absl::StrContains(log, R"("tenant":"bob")");
  }));
  EXPECT_THAT(server_->log().text(), Not(HasSubstr("s-token")));
  EXPECT_THAT(server_->log().text(), Not(HasSubstr("guessed-token")));
  EXPECT_THAT(server_->daemon().metrics().Scrape(),
              HasSubstr("tessera_requests_by_tenant_total{tenant=\"alice\"} 1"));
}

TEST_F(AuthTest, AChangedFileIsUsedWithoutARestart) {
  EXPECT_EQ(Http("GET", "/v1/models", "bobs-token").status, 200);
  folder_.Write("tokens", Line("alices-token", "alice") + Line("carols-token", "carol"));
  ASSERT_TRUE(Eventually([&] { return Http("GET", "/v1/models", "bobs-token").status == 401; }));
  EXPECT_EQ(Http("GET", "/v1/models", "carols-token").status, 200);
  folder_.Write("tokens", "nonsense\n");
  ASSERT_TRUE(Eventually([&] {
    return server_->daemon().metrics().Value(Metric::kReloads, {"tokens", "failed"}) == 1;
  }));
  EXPECT_EQ(Http("GET", "/v1/models", "carols-token").status, 200);
  EXPECT_THAT(server_->log().text(), HasSubstr("tokens: line 1: "));
}

TEST(AuthStartTest, ABadFileKeepsTheDaemonFromStarting) {
  ServerConfig config;
  config.token_file = "/nonexistent/tokens";
  MemoryLogger log;
  const auto daemon = Daemon::Start(
      config, &log, [](const ServerConfig&, Observer*, Runtime*) { return absl::OkStatus(); }, "");
  ASSERT_FALSE(daemon.ok());
  EXPECT_THAT(std::string(daemon.status().message()),
              HasSubstr("--token_file: /nonexistent/tokens"));
}

}  // namespace
}  // namespace tessera
