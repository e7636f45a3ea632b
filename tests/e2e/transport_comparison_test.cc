// `tessera bench --compare_http` against the real daemon: the same work over both transports.
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "client/load/bench_config.h"
#include "client/load/openai_load.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/http/openai_request.h"
#include "tests/client/run_command.h"
#include "tests/e2e/child_server.h"
#include "tests/server/http_client.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using testing::HasSubstr;

client::Args CompareArgs(const ChildServer& server, const std::string& http) {
  return {"bench",
          "--json",
          "--address",
          server.listen(),
          "--compare_http",
          http,
          "--concurrency=2",
          "--rounds=6",
          "--warmup=1",
          "--images=1",
          "--image_side=40",
          "--prompt_tokens=24",
          "--output_tokens=4"};
}

TEST(TransportComparison, BothDoorsDoTheSameWorkAfresh) {
  ChildServer server;
  ASSERT_TRUE(server.serving());
  const client::Outcome outcome = client::RunCommand(CompareArgs(server, server.http()));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto json = nlohmann::json::parse(outcome.out, nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(json.is_object()) << outcome.out;
  EXPECT_EQ(json["rounds"], 6);
  EXPECT_EQ(json["requests_per_round"], 8);
  EXPECT_EQ(json["output_tokens_mean"], 4.0);
  for (const char* name : {"ttft_seconds", "tpot_seconds", "e2e_seconds", "tokens_per_second"}) {
    const auto& entry = json[name];
    EXPECT_GT(entry["ratio_low"], 0) << name;
    EXPECT_LE(entry["ratio_low"], entry["ratio"]) << name;
    EXPECT_LE(entry["ratio"], entry["ratio_high"]) << name;
  }
  // Seven rounds of eight over each transport, and neither found cached results of the other.
  const std::string page = server.HttpGet("/metrics");
  EXPECT_TRUE(absl::StrContains(page, "tessera_request_generation_tokens_count 112\n"));
  EXPECT_TRUE(absl::StrContains(page, "tessera_prefix_cache_hit_tokens_total 0\n"));
}

TEST(TransportComparison, RefusalsAreErrors) {
  ChildServer server;
  ASSERT_TRUE(server.serving());
  client::Args args = CompareArgs(server, server.http());
  args.push_back("--kv_policy=none");
  EXPECT_EQ(client::RunCommand(args).code, 0);
  // The metrics listener speaks HTTP, but has no such path.
  const client::Outcome outcome = client::RunCommand(CompareArgs(server, server.metrics()));
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("HTTP: HTTP status 404"));
}

// The same request goes over HTTP and over gRPC.
TEST(TransportComparison, TheBodyIsTheRequest) {
  client::BenchConfig config;
  config.images = 2;
  config.image_side = 20;
  config.kv_policy = "rtn(bits=4)";
  const client::Workload workload(config, /*words=*/12);
  v1::GenerateRequest request = workload.Make(3);
  request.mutable_cache()->set_salt("s");
  const auto parsed =
      ParseOpenAiRequest(OpenAiKind::kChat, client::ToOpenAiBody(request), ModelConfig());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_TRUE(parsed->stream && parsed->include_usage);
  ASSERT_EQ(parsed->prompts.size(), 1u);
  v1::GenerateRequest over_http = parsed->prompts[0];
  ASSERT_EQ(over_http.messages_size(), 1);
  ASSERT_EQ(over_http.messages(0).content_size(), 3);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(over_http.messages(0).content(i).image().data(), request.content(i).image().data());
  }
  EXPECT_EQ(over_http.messages(0).content(2).text(), request.content(2).text());
  EXPECT_EQ(over_http.sampling().SerializeAsString(), request.sampling().SerializeAsString());
  EXPECT_EQ(over_http.stopping().SerializeAsString(), request.stopping().SerializeAsString());
  EXPECT_EQ(over_http.kv_policy().text(), "rtn(bits=4)");
  EXPECT_EQ(over_http.cache().salt(), "s");
}

// Greedy and sampled answers about images have the same tokens over both transports. On the CPU the
// probabilities are equal bit by bit.
TEST(TransportComparison, TheAnswersAreTheSame) {
  ChildServer server;
  ASSERT_TRUE(server.serving());
  HttpClient http(server.http());
  client::BenchConfig config;
  config.images = 1;
  config.image_side = 60;
  config.output_tokens = 12;
  const client::Workload workload(config, /*words=*/20);
  for (int i = 0; i < 4; ++i) {
    v1::GenerateRequest request = workload.Make(i);
    auto body = nlohmann::json::parse(client::ToOpenAiBody(request));
    body["stream"] = false;
    body.erase("stream_options");
    body["logprobs"] = true;
    request.mutable_response()->set_logprobs(true);
    if (i % 2 == 1) {
      body["temperature"] = 1;
      body["seed"] = 100 + i;
      request.mutable_sampling()->set_temperature(1);
      request.mutable_sampling()->set_seed(100 + i);
    }
    const Answer answer = Generate(server.inference(), request);
    ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
    std::vector<float> over_grpc, over_http;
    for (const auto& delta : answer.deltas) {
      for (const auto& token : delta.logprobs()) over_grpc.push_back(token.logprob());
    }
    const HttpReply reply = http.Post("/v1/chat/completions", body.dump());
    ASSERT_EQ(reply.status, 200) << reply.body;
    const auto choice = nlohmann::json::parse(reply.body)["choices"][0];
    for (const auto& token : choice["logprobs"]["content"]) over_http.push_back(token["logprob"]);
    EXPECT_EQ(over_http.size(), 12u);
    EXPECT_EQ(over_http, over_grpc) << i;
    EXPECT_EQ(choice["message"]["content"], answer.text) << i;
  }
}

}  // namespace
}  // namespace tessera
