// Signals, draining, and configuration from a file and the environment.
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <future>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/child_server.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using testing::HasSubstr;

v1::GenerateRequest Story(int tokens) {
  v1::GenerateRequest request = TextRequest("Tell a story.");
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_stopping()->set_max_tokens(tokens);
  return request;
}

bool RefusesNew(ChildServer& server) {
  return View(Generate(server.inference(), Story(1)).status).reason == "DRAINING";
}

TEST(ProcessTest, TermFinishesWhatRunsAndExitsZero) {
  ChildServer server;
  auto running =
      std::async(std::launch::async, [&] { return Generate(server.inference(), Story(600)); });
  ASSERT_TRUE(Eventually([&] { return server.Load().running() == 1; }));
  server.Signal(SIGTERM);
  EXPECT_TRUE(Eventually([&] { return RefusesNew(server); }));
  const Answer answer = running.get();
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.finished->usage().output_tokens(), 600);
  EXPECT_EQ(server.WaitForExit(), 0);
  EXPECT_THAT(server.log(), HasSubstr("\"msg\":\"stopped\",\"calls_ended_early\":0"));
}

TEST(ProcessTest, SecondTermHurries) {
  ChildServer server({"--drain_delay=1h", "--drain_timeout=1h", "--metrics_listen=off"});
  auto running =
      std::async(std::launch::async, [&] { return Generate(server.inference(), Story(4000)); });
  ASSERT_TRUE(Eventually([&] { return server.Load().running() == 1; }));
  server.Signal(SIGTERM);
  ASSERT_TRUE(Eventually([&] { return server.log().find("draining") != std::string::npos; }));
  EXPECT_FALSE(RefusesNew(server));  // the delay goes on
  server.Signal(SIGTERM);
  EXPECT_EQ(View(running.get().status).code, grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(server.WaitForExit(), 0);
}

TEST(ProcessTest, ControlDrainLeavesTheProcess) {
  ChildServer server;
  grpc::ClientContext context;
  v1::DrainResponse response;
  ASSERT_TRUE(server.control().Drain(&context, {}, &response).ok());
  EXPECT_TRUE(RefusesNew(server));
  EXPECT_EQ(server.Load().running(), 0);  // Control still answers
  EXPECT_THAT(server.HttpGet("/metrics"), HasSubstr("tessera_ready 0\n"));
  server.Signal(SIGINT);
  EXPECT_EQ(server.WaitForExit(), 0);
}

TEST(ProcessTest, FlagsComeFromFileAndEnvironment) {
  const std::string file = absl::StrCat(testing::TempDir(), "flags.", getpid());
  std::ofstream(file) << "# a comment\n\n--max_queue=17\n--model_name=from-file\n";
  setenv("FLAGS_max_images", "3", 1);
  ChildServer server({"--flagfile=" + file, "--tryfromenv=max_images,max_sequences"});
  unsetenv("FLAGS_max_images");
  unlink(file.c_str());
  EXPECT_EQ(server.Load().max_queue(), 17);
  grpc::ClientContext c1, c2;
  v1::GetModelInfoResponse model;
  ASSERT_TRUE(server.control().GetModelInfo(&c1, {}, &model).ok());
  EXPECT_EQ(model.name(), "from-file");
  EXPECT_EQ(model.max_images(), 3);
  v1::GetServerInfoResponse info;
  ASSERT_TRUE(server.control().GetServerInfo(&c2, {}, &info).ok());
  EXPECT_EQ(info.flags().at("max_images"), "3");
  EXPECT_EQ(info.flags().at("kv_cache_bytes"), "64MiB");
  EXPECT_EQ(info.flags().at("max_sequences"), "64");
}

TEST(ProcessTest, LogIsJsonLineByLine) {
  ChildServer server({"--log_level=debug", "--metrics_listen=off"});
  v1::GenerateRequest request = TextRequest("tell nobody: swordfish");
  request.set_request_id("quote\"and{brace");
  request.mutable_stopping()->set_max_tokens(2);
  ASSERT_TRUE(Generate(server.inference(), request).status.ok());
  server.Signal(SIGTERM);
  ASSERT_EQ(server.WaitForExit(), 0);
  bool found = false;
  for (const auto line : absl::StrSplit(server.log(), '\n', absl::SkipEmpty())) {
    const auto json = nlohmann::json::parse(std::string(line), nullptr, false);
    ASSERT_TRUE(json.is_object()) << line;
    EXPECT_TRUE(json.contains("ts") && json.contains("level") && json.contains("msg")) << line;
    found |= json["msg"] == "generate" && json["request_id"] == "quote\"and{brace";
  }
  EXPECT_TRUE(found);
  EXPECT_EQ(server.log().find("swordfish"), std::string::npos);
}

TEST(ProcessTest, HelpListsOurFlags) {
  const std::string help = RunTesserad({"--help"}).output;
  for (const char* flag : {"--model ", "--listen ", "--kv_cache_bytes ", "--kv_policy ",
                           "--drain_timeout ", "--log_format "}) {
    EXPECT_THAT(help, HasSubstr(flag));
  }
  const RunResult version = RunTesserad({"--version"});
  EXPECT_EQ(version.status, 0);
  EXPECT_THAT(version.output, HasSubstr("tesserad "));
}

TEST(ProcessTest, DummyWeightsServe) {
  ChildServer server({"--load_format=dummy", "--device=cpu"});
  const Answer answer = Generate(server.inference(), Story(3));
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.finished->usage().output_tokens(), 3);
}

}  // namespace
}  // namespace tessera
