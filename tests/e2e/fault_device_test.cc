// The device fails or hangs while requests run. No client waits forever or gets a token that the
// device did not compute, and the process ends with a line that says why.
#include <signal.h>

#include <future>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/process/crash_handler.h"
#include "tests/e2e/child_server.h"
#include "tests/server/http_client.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

v1::GenerateRequest Question() {
  v1::GenerateRequest request = EvalRequest(EvalLines("questions.jsonl").front());
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_stopping()->set_max_tokens(40);
  request.mutable_kv_policy()->set_text("rtn(bits=4)");  // its commit moves tokens
  return request;
}

v1::GenerateRequest Story(int tokens) {
  v1::GenerateRequest request = TextRequest("Tell a story.");
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_stopping()->set_max_tokens(tokens);
  return request;
}

// The connection may break before the status has come, or the call may come after the end. Both are
// UNAVAILABLE as well.
void ExpectTold(const grpc::Status& status) {
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
  EXPECT_THAT(View(status).reason, AnyOf("SERVER_FAILED", "DRAINING", ""))
      << status.error_message();
}

void ExpectEnd(ChildServer& server, const std::string& why) {
  EXPECT_EQ(server.WaitForExit(), CrashHandler::kExitFault);
  const std::string log = server.log();
  EXPECT_THAT(log, HasSubstr(absl::StrCat("tesserad: ", why)));
  EXPECT_THAT(log, HasSubstr(absl::StrCat("\"cannot go on\",\"error\":\"", why)));
}

// One operation of each kind fails, early or in the middle of the answer.
struct Case {
  const char* op;
  int call;
};
class FailingDeviceTest : public testing::TestWithParam<Case> {};

TEST_P(FailingDeviceTest, EndsEveryCallAndTheProcess) {
  const auto [op, call] = GetParam();
  static const std::string* const right = [] {
    ChildServer healthy;
    return new std::string(Generate(healthy.inference(), Question()).text);
  }();
  ChildServer server({"--max_sequences=2"},
                     {"faulty_tesserad", absl::StrCat(op, ":", call, ":end")});
  std::vector<std::future<Answer>> calls;  // two run, one waits
  for (int i = 0; i < 3; ++i) {
    calls.push_back(
        std::async(std::launch::async, [&] { return Generate(server.inference(), Question()); }));
  }
  for (auto& call : calls) {
    const Answer answer = call.get();
    ExpectTold(answer.status);
    EXPECT_TRUE(absl::StartsWith(*right, answer.text)) << answer.text << "\nnot of\n" << *right;
  }
  ExpectEnd(server, absl::StrCat("device error: ", op));
}

INSTANTIATE_TEST_SUITE_P(Operations, FailingDeviceTest,
                         testing::Values(Case{"Patchify", 1}, Case{"CopyToDevice", 3},
                                         Case{"Allocate", 2}, Case{"MatMul", 300},
                                         Case{"PagedAttention", 100}, Case{"MoveTokens", 1},
                                         Case{"SampleTokens", 10}, Case{"CopyToHost", 20}),
                         [](const auto& info) { return std::string(info.param.op); });

TEST(FaultyDeviceTest, AnHttpStreamEndsWithAnError) {
  ChildServer server({}, {"faulty_tesserad", "SampleTokens:30:end"});
  HttpClient client(server.http());
  const std::string body =
      R"({"prompt":"a","stream":true,"temperature":0,"max_tokens":200,"ignore_eos":true})";
  client.Send(absl::StrCat("POST /v1/completions HTTP/1.1\r\nContent-Length: ", body.size(),
                           "\r\n\r\n", body));
  EXPECT_EQ(client.ReadHead().status, 200);
  std::string last;
  int pieces = 0;
  for (std::string event; !(event = client.ReadEvent()).empty(); last = event) ++pieces;
  EXPECT_THAT(last, HasSubstr("the server has failed"));
  EXPECT_GT(pieces, 1);
  EXPECT_LE(pieces, 30);
  ExpectEnd(server, "device error: SampleTokens");
}

TEST(FaultyDeviceTest, AFailureWhileTheModelLoadsEndsTheStart) {
  const RunResult result = RunProgram(
      {"faulty_tesserad", "MakeLinear:3:end+load"},
      {"--listen=127.0.0.1:0", "--admin_listen=off", "--http_listen=off", "--metrics_listen=off"});
  EXPECT_EQ(result.status, CrashHandler::kExitFault);
  EXPECT_THAT(result.output, HasSubstr("tesserad: device error: MakeLinear: injected"));
}

// A failed check or a watchdog ends the process in this way.
TEST(FaultyDeviceTest, AnAbortIsToldToo) {
  ChildServer server;
  auto call =
      std::async(std::launch::async, [&] { return Generate(server.inference(), Story(3900)); });
  ASSERT_TRUE(Eventually([&] { return server.Load().running() == 1; }));
  server.Signal(SIGABRT);
  ExpectTold(call.get().status);
  EXPECT_EQ(server.WaitForExit(), 128 + SIGABRT);
  EXPECT_THAT(server.log(), HasSubstr("\ntesserad: aborted"));
  EXPECT_THAT(server.log(), HasSubstr("\"cannot go on\",\"error\":\"aborted"));
}

// Only time tells a device that hangs from one that is slow.
TEST(FaultyDeviceTest, AHungDeviceIsNotLiveAndDoesNotHoldTheProcess) {
  ChildServer server({"--liveness_timeout=1s", "--drain_timeout=100ms"},
                     {"faulty_tesserad", "SampleTokens:5:hang"});
  auto call =
      std::async(std::launch::async, [&] { return Generate(server.inference(), Story(100)); });
  HttpClient client(server.http());
  EXPECT_TRUE(Eventually([&] {
    const HttpReply health = client.Get("/health");
    return health.status == 503 && absl::StrContains(health.body, "\"live\":false");
  }));
  server.Signal(SIGTERM);
  EXPECT_EQ(call.get().status.error_code(), grpc::StatusCode::UNAVAILABLE);
  ExpectEnd(server, "the engine is not live and cannot be stopped");
}

}  // namespace
}  // namespace tessera
