// An operator's view of the real engine: admin calls, metrics and logs.
#include <future>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "server/observability/metrics_table.h"
#include "tests/e2e/child_server.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using testing::HasSubstr;

// Returns a request for an answer of thousands of tokens.
v1::GenerateRequest LongRequest(const std::string& id = "") {
  v1::GenerateRequest request = TextRequest("Tell a long story.");
  request.set_request_id(id);
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_stopping()->set_max_tokens(3900);
  return request;
}

bool Idle(ChildServer& server) {
  const v1::GetLoadResponse load = server.Load();
  return load.running() == 0 && load.waiting() == 0 && load.kv_bytes_used() == 0;
}

// The numbers change a moment after the answer, when the call has ended and the step is published.
bool Shows(ChildServer& server, const std::string& line) {
  return Eventually([&] { return server.HttpGet("/metrics").find(line) != std::string::npos; });
}

class OperationsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    server_ = std::make_unique<ChildServer>(std::vector<std::string>{"--stall_timeout=500ms"});
  }
  static void TearDownTestSuite() { server_ = nullptr; }
  static std::unique_ptr<ChildServer> server_;
};
std::unique_ptr<ChildServer> OperationsTest::server_;

TEST_F(OperationsTest, MetricsExistFromTheStart) {
  ChildServer fresh;
  const std::string text = fresh.HttpGet("/metrics");
  EXPECT_THAT(text, HasSubstr("200 OK"));
  for (const MetricSpec& spec : MetricsTable("", "", "")) {
    EXPECT_THAT(text, HasSubstr(absl::StrCat("# TYPE ", spec.name, " "))) << spec.name;
  }
  EXPECT_THAT(text, HasSubstr("tessera_requests_total{code=\"OK\",method=\"Generate\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("tessera_time_to_first_token_seconds_count 0\n"));
  EXPECT_THAT(text, HasSubstr("tessera_ready 1\n"));
  EXPECT_THAT(text, HasSubstr("model=\"demo\""));
}

TEST_F(OperationsTest, MetricsCountOneAnswer) {
  ChildServer fresh;
  const auto question = EvalLines("questions.jsonl").front();
  const Answer answer = Generate(fresh.inference(), EvalRequest(question));
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  const v1::Usage& usage = answer.finished->usage();
  for (const std::string& line :
       {std::string("tessera_requests_total{code=\"OK\",method=\"Generate\"} 1\n"),
        absl::StrCat("tessera_prompt_tokens_total ", usage.prompt_tokens(), "\n"),
        absl::StrCat("tessera_image_tokens_total ", usage.image_tokens(), "\n"),
        absl::StrCat("tessera_generation_tokens_total ", usage.output_tokens(), "\n"),
        std::string("tessera_time_to_first_token_seconds_count 1\n"),
        std::string("tessera_e2e_request_latency_seconds_count 1\n"),
        std::string("tessera_image_decode_seconds_count 1\n"),
        std::string("tessera_vision_encode_seconds_count 1\n"),
        std::string("tessera_image_cache_lookups_total 1\n"),
        std::string("tessera_requests_by_policy_total{policy=\"none\"} 1\n"),
        std::string("tessera_num_requests_running 0\n"),
        std::string("tessera_kv_cache_bytes{state=\"used\"} 0\n")}) {
    EXPECT_TRUE(Shows(fresh, line)) << line;
  }
}

TEST_F(OperationsTest, DroppedStreamFreesItsPages) {
  grpc::ClientContext context;
  auto reader = server_->inference().Generate(&context, LongRequest());
  v1::GenerateResponse response;
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(reader->Read(&response));
  EXPECT_GT(server_->Load().kv_bytes_used(), 0);
  context.TryCancel();
  EXPECT_TRUE(Eventually([&] { return Idle(*server_); }));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(OperationsTest, DeadlineFreesItsPages) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(400));
  const Answer answer = Generate(server_->inference(), LongRequest(), &context);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(Eventually([&] { return Idle(*server_); }));
}

TEST_F(OperationsTest, AbortFreesItsPages) {
  auto answer = std::async(std::launch::async,
                           [&] { return Generate(server_->inference(), LongRequest("gone")); });
  ASSERT_TRUE(Eventually([&] { return server_->Load().running() == 1; }));
  grpc::ClientContext context;
  v1::AbortRequest abort;
  abort.set_request_id("gone");
  v1::AbortResponse response;
  ASSERT_TRUE(server_->control().Abort(&context, abort, &response).ok());
  EXPECT_EQ(answer.get().status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([&] { return Idle(*server_); }));
}

TEST_F(OperationsTest, LiveRequestIdsAreUnique) {
  grpc::ClientContext context;
  auto reader = server_->inference().Generate(&context, LongRequest("twin"));
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  const ErrorView error = View(Generate(server_->inference(), LongRequest("twin")).status);
  EXPECT_EQ(error.code, grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(error.field, "request_id");
  context.TryCancel();
  reader->Finish();
  EXPECT_TRUE(Eventually([&] { return Idle(*server_); }));
}

TEST_F(OperationsTest, FlushEmptiesTheCaches) {
  const auto question = EvalLines("questions.jsonl").front();
  const Answer first = Generate(server_->inference(), EvalRequest(question));
  const Answer second = Generate(server_->inference(), EvalRequest(question));
  EXPECT_EQ(first.text, second.text);
  EXPECT_GT(second.finished->usage().cached_tokens(), 0);
  EXPECT_GT(server_->CacheStats().prefix_blocks(), 0);
  EXPECT_GT(server_->CacheStats().image_cache_entries(), 0);
  grpc::ClientContext context;
  v1::FlushCacheResponse response;
  ASSERT_TRUE(server_->control().FlushCache(&context, {}, &response).ok());
  EXPECT_TRUE(Eventually([&] {
    const auto stats = server_->CacheStats();
    return stats.prefix_blocks() == 0 && stats.image_cache_entries() == 0 &&
           stats.reclaimable_bytes() == 0;
  }));
  const Answer third = Generate(server_->inference(), EvalRequest(question));
  EXPECT_EQ(third.text, first.text);
  EXPECT_EQ(third.finished->usage().cached_tokens(), 0);
}

TEST_F(OperationsTest, ReaderThatStopsIsGivenUp) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);  // keeps the window at 64 KiB
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  auto stub = v1::Inference::NewStub(
      grpc::CreateCustomChannel(server_->listen(), grpc::InsecureChannelCredentials(), arguments));
  v1::GenerateRequest request = LongRequest();
  request.mutable_response()->set_top_logprobs(20);
  grpc::ClientContext context;
  auto reader = stub->Generate(&context, request);
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_TRUE(Eventually([&] { return Idle(*server_); }));
  EXPECT_TRUE(
      Eventually([&] { return server_->log().find("stopped reading") != std::string::npos; }));
  while (reader->Read(&response)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST(StormTest, TinyArenaManyCancels) {
  ChildServer server({"--kv_cache_bytes=8MiB", "--max_queue=8", "--context_tokens=200"});
  std::atomic<int> finished{0}, cancelled{0}, refused{0}, other{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < 12; ++c) {
    clients.emplace_back([&, c] {
      for (int i = 0; i < 15; ++i) {
        v1::GenerateRequest request = TextRequest("Hello there, how are you?");
        request.mutable_stopping()->set_max_tokens(12);
        request.mutable_stopping()->set_ignore_eos(true);
        grpc::ClientContext context;
        auto reader = server.inference().Generate(&context, request);
        v1::GenerateResponse response;
        const int reads = (5 * c + 3 * i) % 10 < 3 ? i % 4 : 1 << 20;
        for (int got = 0; got < reads && reader->Read(&response); ++got) {
        }
        if (reads < 4) context.TryCancel();
        while (reader->Read(&response)) {
        }
        const ErrorView error = View(reader->Finish());
        (error.code == grpc::StatusCode::OK                                              ? finished
         : error.code == grpc::StatusCode::CANCELLED                                     ? cancelled
         : error.code == grpc::StatusCode::RESOURCE_EXHAUSTED && error.retry.has_value() ? refused
                                                                                         : other)++;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(other, 0);
  EXPECT_GT(finished, 0);
  EXPECT_GT(cancelled, 0);
  EXPECT_EQ(finished + cancelled + refused, 12 * 15);
  EXPECT_TRUE(Eventually([&] { return Idle(server); }));
  EXPECT_TRUE(Shows(server, "tessera_rpcs_in_flight 0\n"));
}

}  // namespace
}  // namespace tessera
