// SIGTERM at each stage of the daemon's life, and SIGKILL with a restart at the same addresses.
#include <signal.h>
#include <unistd.h>

#include <future>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "tests/e2e/child_server.h"
#include "tests/server/http_client.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using testing::HasSubstr;
using testing::Not;

v1::GenerateRequest Story(int tokens) {
  v1::GenerateRequest request = TextRequest("Tell a story.");
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_stopping()->set_max_tokens(tokens);
  return request;
}

void BeginHttpStream(HttpClient& client, int tokens) {
  const std::string body =
      absl::StrCat(R"({"prompt":"a","stream":true,"ignore_eos":true,"max_tokens":)", tokens, "}");
  client.Send(absl::StrCat("POST /v1/completions HTTP/1.1\r\nContent-Length: ", body.size(),
                           "\r\n\r\n", body));
  EXPECT_EQ(client.ReadHead().status, 200);
  EXPECT_NE(client.ReadEvent(), "");
}

std::string LastEventOf(HttpClient& client) {
  std::string last;
  for (std::string event; !(event = client.ReadEvent()).empty();) last = event;
  return last;
}

TEST(TermTest, WhileTheModelLoads) {
  ChildServer server({}, {"faulty_tesserad", "MakeLinear:3:hang+load"}, "listening");
  const ErrorView early = View(Generate(server.inference(), Story(1)).status);
  EXPECT_EQ(early.reason, "STARTING");
  server.Signal(SIGTERM);
  EXPECT_EQ(server.WaitForExit(), 0);
  EXPECT_THAT(server.log(), HasSubstr("stopped while loading"));
  EXPECT_THAT(server.log(), Not(HasSubstr("\"serving\"")));
}

TEST(TermTest, WhilePrefilling) {
  ChildServer server({}, {"faulty_tesserad", "Embed:1:slow"});
  auto call =
      std::async(std::launch::async, [&] { return Generate(server.inference(), Story(5)); });
  // The first step takes a second.
  ASSERT_TRUE(Eventually([&] { return server.Load().waiting() + server.Load().running() == 1; }));
  server.Signal(SIGTERM);
  const Answer answer = call.get();
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.finished->usage().output_tokens(), 5);
  EXPECT_EQ(server.WaitForExit(), 0);
  EXPECT_THAT(server.log(), HasSubstr("\"calls_ended_early\":0"));
}

TEST(TermTest, WhileRequestsWait) {
  ChildServer server({"--max_sequences=1"});
  std::vector<std::future<Answer>> calls;
  for (int i = 0; i < 3; ++i) {
    calls.push_back(
        std::async(std::launch::async, [&] { return Generate(server.inference(), Story(200)); }));
  }
  ASSERT_TRUE(Eventually([&] {
    const auto load = server.Load();
    return load.running() == 1 && load.waiting() == 2;
  }));
  server.Signal(SIGTERM);
  for (auto& call : calls) EXPECT_TRUE(call.get().status.ok());
  EXPECT_EQ(server.WaitForExit(), 0);
}

TEST(TermTest, WhileAnHttpStreamRuns) {
  ChildServer server;
  HttpClient client(server.http());
  BeginHttpStream(client, 300);
  server.Signal(SIGTERM);
  EXPECT_EQ(LastEventOf(client), "[DONE]");
  EXPECT_EQ(server.WaitForExit(), 0);
  EXPECT_THAT(server.log(), HasSubstr("\"calls_ended_early\":0"));
}

TEST(TermTest, AnHttpStreamThatOutlastsTheDrainIsToldSo) {
  ChildServer server({"--drain_timeout=100ms"});
  HttpClient client(server.http()), idle(server.http());
  BeginHttpStream(client, 3900);
  server.Signal(SIGTERM);
  EXPECT_THAT(LastEventOf(client), HasSubstr("the server is stopping"));
  EXPECT_EQ(server.WaitForExit(), 0);
  EXPECT_THAT(server.log(), HasSubstr("\"calls_ended_early\":1"));
}

// An idle connection does not keep the process from ending.
TEST(TermTest, WhileNothingRuns) {
  ChildServer server({"--drain_timeout=1h"});
  HttpClient idle(server.http());
  ASSERT_EQ(idle.Get("/health").status, 200);
  server.Signal(SIGTERM);
  EXPECT_EQ(server.WaitForExit(), 0);
}

TEST(KillTest, ARestartTakesTheSameAddressesAtOnce) {
  const std::string path = absl::StrCat(testing::TempDir(), "kill_test.", getpid());
  std::string listen, http;
  {
    ChildServer first({"--admin_listen=unix:" + path});
    listen = first.listen();
    http = first.http();
    HttpClient stream(first.http());
    BeginHttpStream(stream, 3900);
    auto call =
        std::async(std::launch::async, [&] { return Generate(first.inference(), Story(3900)); });
    ASSERT_TRUE(Eventually([&] { return first.Load().running() == 2; }));
    first.Signal(SIGKILL);
    EXPECT_EQ(call.get().status.error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_NE(LastEventOf(stream), "[DONE]");
    EXPECT_EQ(first.WaitForExit(), 128 + SIGKILL);
  }
  ASSERT_EQ(access(path.c_str(), F_OK), 0);  // the killed process left its socket
  // A client that waits for a server finds the new one.
  auto patient = std::async(std::launch::async, [&] {
    const auto stub =
        v1::Inference::NewStub(grpc::CreateChannel(listen, grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    v1::GenerateRequest request = Story(3);
    return Generate(*stub, request, &context).status;
  });
  ChildServer second(
      {"--admin_listen=unix:" + path, "--listen=" + listen, "--http_listen=" + http});
  ASSERT_TRUE(second.serving());
  EXPECT_EQ(second.listen(), listen);
  const grpc::Status status = patient.get();
  // The client may have reached the new process while it was loading.
  if (!status.ok()) {
    EXPECT_EQ(View(status).reason, "STARTING") << status.error_message();
  }
  EXPECT_TRUE(Generate(second.inference(), Story(3)).status.ok());
  // Control answers at the path. The end of the step may be published a moment after the answer.
  EXPECT_TRUE(Eventually([&] { return second.Load().running() == 0; }));
  second.Signal(SIGTERM);
  EXPECT_EQ(second.WaitForExit(), 0);
}

}  // namespace
}  // namespace tessera
