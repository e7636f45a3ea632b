// `tessera bench --soak` against the real daemon. It passes for a clean server, and fails for one
// that still works for another client.
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/client/run_command.h"
#include "tests/e2e/child_server.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

client::Args SoakArgs(const ChildServer& server, int requests, const std::string& metrics,
                      const std::string& cancel_share = "0.2") {
  return {"bench", "--soak", "--json", "--address", server.listen(), "--admin_address",
          server.admin(), "--metrics_address", metrics, absl::StrCat("--requests=", requests),
          "--concurrency=16", "--image_side=64", "--prompt_tokens=16", "--output_tokens=8",
          "--cancel_share=" + cancel_share,
          // The address sanitizer keeps freed memory for a while.
          absl::StrCat("--max_growth_mib=", 32 * kSlowness), "--slow_share=0.1",
          "--read_pause=3ms"};
}

// Small caches reach their final size well before the second third of the requests.
std::vector<std::string> SmallCaches() {
  return {"--kv_cache_bytes=16MiB", "--image_cache_bytes=1MiB"};
}

TEST(Soak, FindsNothingLost) {
  ChildServer server(SmallCaches());
  ASSERT_TRUE(server.serving());
  const client::Outcome outcome = client::RunCommand(SoakArgs(server, 120, server.metrics()));
  EXPECT_EQ(outcome.code, 0) << outcome.err << outcome.out;
  const auto json = nlohmann::json::parse(outcome.out, nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(json.is_object()) << outcome.out;
  EXPECT_EQ(json["answered"].get<int>() + json["cancelled"].get<int>(), 120);
  // On average 24 are chosen. A request that ends before its cancellation counts as answered.
  EXPECT_GT(json["cancelled"].get<int>(), 0);
  EXPECT_GT(json["read_slowly"].get<int>(), 0);
  EXPECT_EQ(json["samples"].size(), 120u);  // one for each of fewer than 2 x 90 requests
  // The server saw both kinds, and every policy that it offers.
  const std::string page = server.HttpGet("/metrics");
  EXPECT_THAT(page, testing::Not(testing::HasSubstr("tessera_cancellations_total 0\n")));
  grpc::ClientContext context;
  v1::GetModelInfoResponse model;
  const auto stub =
      v1::Control::NewStub(grpc::CreateChannel(server.admin(), grpc::InsecureChannelCredentials()));
  ASSERT_TRUE(stub->GetModelInfo(&context, {}, &model).ok());
  for (const std::string& policy : model.kv_policies()) {
    EXPECT_THAT(page, testing::Not(testing::HasSubstr(absl::StrCat(
                          "tessera_requests_by_policy_total{policy=\"", policy, "\"} 0\n"))));
  }
}

// Runs for two minutes and more, so that a slow leak shows.
TEST(Soak, FiveThousandRequestsLoseNothing) {
  if (kSlowness > 1) GTEST_SKIP() << "hours under a sanitizer: FindsNothingLost is the short one";
  ChildServer server(SmallCaches());
  ASSERT_TRUE(server.serving());
  const client::Outcome outcome =
      client::RunCommand(SoakArgs(server, 5000, server.metrics(), /*cancel_share=*/"0.1"));
  EXPECT_EQ(outcome.code, 0) << outcome.err << outcome.out.substr(0, 2000);
  const auto json = nlohmann::json::parse(outcome.out, nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(json.is_object());
  EXPECT_EQ(json["answered"].get<int>() + json["cancelled"].get<int>(), 5000);
  EXPECT_GT(json["cancelled"].get<int>(), 100);
}

TEST(Soak, NoticesARequestThatStays) {
  ChildServer server;  // its cache holds the long answer
  ASSERT_TRUE(server.serving());
  v1::GenerateRequest request = TextRequest("Tell a long story.");
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_stopping()->set_max_tokens(3900);
  grpc::ClientContext context;
  auto reader = server.inference().Generate(&context, request);
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  client::Args args = SoakArgs(server, 30, server.metrics());
  args.push_back("--settle=50ms");
  const client::Outcome outcome = client::RunCommand(args);
  context.TryCancel();
  reader->Finish();
  EXPECT_EQ(outcome.code, 1) << outcome.err << outcome.out;
  const auto json = nlohmann::json::parse(outcome.out, nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(json.is_object()) << outcome.out;
  EXPECT_EQ(json["ok"], false);
  std::map<std::string, double> after;
  for (const auto& check : json["checks"]) after[check["name"]] = check["after"];
  EXPECT_EQ(after["calls in flight"], 1);
  EXPECT_EQ(after["requests running"], 1);
  EXPECT_EQ(after.count("failed requests"), 1u);
  EXPECT_EQ(after["failed requests"], 0);
}

TEST(Soak, SaysWhichListenerIsMissing) {
  ChildServer server(SmallCaches());
  ASSERT_TRUE(server.serving());
  // The admin listener speaks gRPC.
  const client::Outcome outcome = client::RunCommand(SoakArgs(server, 30, server.admin()));
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, testing::HasSubstr(absl::StrCat("metrics of ", server.admin())));
}

}  // namespace
}  // namespace tessera
