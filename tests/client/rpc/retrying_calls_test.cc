#include "client/rpc/retrying_calls.h"

#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"
#include "tests/client/fake_server.h"

namespace tessera::client {
namespace {

RetryPolicy Quick() {
  RetryPolicy policy;
  policy.retries = 3;
  policy.initial = absl::Milliseconds(2);
  policy.limit = absl::Milliseconds(8);
  return policy;
}

FinalResult Wait(RetryingCalls* calls) {
  while (true) {
    if (auto result = calls->Next()) return *std::move(result);
  }
}

TEST(ClientBackoff, DoublesUpToItsLimitAndHonoursTheServer) {
  RetryPolicy policy;
  policy.initial = absl::Milliseconds(100);
  policy.limit = absl::Seconds(1);
  EXPECT_EQ(Backoff(policy, 1, 0.5, std::nullopt), absl::Milliseconds(50));
  EXPECT_EQ(Backoff(policy, 3, 0.5, std::nullopt), absl::Milliseconds(200));
  EXPECT_EQ(Backoff(policy, 50, 0.5, std::nullopt), absl::Milliseconds(500));
  EXPECT_EQ(Backoff(policy, 1000000, 0.5, std::nullopt), absl::Milliseconds(500));
  EXPECT_EQ(Backoff(policy, 1, 0.5, absl::Seconds(7)), absl::Seconds(7));
  EXPECT_EQ(Backoff(policy, 1, 0.75, absl::Seconds(8)), absl::Seconds(10));
  EXPECT_EQ(Backoff(policy, 3, 0.5, absl::Milliseconds(1)), absl::Milliseconds(200));
}

TEST(ClientRetry, OnlyWhatMayPass) {
  EXPECT_TRUE(Retryable({grpc::StatusCode::UNAVAILABLE}));
  EXPECT_TRUE(Retryable({grpc::StatusCode::RESOURCE_EXHAUSTED}));
  EXPECT_FALSE(Retryable({grpc::StatusCode::OK}));
  EXPECT_FALSE(Retryable({grpc::StatusCode::INVALID_ARGUMENT}));
  EXPECT_FALSE(Retryable({grpc::StatusCode::DEADLINE_EXCEEDED}));
  RpcError never{grpc::StatusCode::RESOURCE_EXHAUSTED};
  never.reason = "LIMIT_EXCEEDED";
  EXPECT_FALSE(Retryable(never));
}

TEST(ClientRetry, TriesUntilItPasses) {
  FakeServer server([](const v1::GenerateRequest& request, int call) {
    EXPECT_EQ(request.content(0).text(), "same");
    Reply reply = Answer("ok");
    if (call == 0) reply.status = RetryAfter(absl::Milliseconds(40));
    if (call == 1) reply.status = {grpc::StatusCode::RESOURCE_EXHAUSTED, "full"};
    return reply;
  });
  RetryingCalls calls(server.channel(), Quick());
  v1::GenerateRequest request;
  request.add_content()->set_text("same");
  const auto begin = Clock::now();
  calls.Start(7, request);
  const FinalResult result = Wait(&calls);
  EXPECT_TRUE(result.call.ok());
  EXPECT_EQ(result.call.tag, 7);
  EXPECT_EQ(result.call.text, "ok");
  EXPECT_EQ(result.attempts, 3);
  EXPECT_EQ(server.requests().size(), 3u);
  EXPECT_GE(Clock::now() - begin, std::chrono::milliseconds(40));
  EXPECT_EQ(calls.in_flight(), 0);
}

TEST(ClientRetry, GivesUpWithTheLastError) {
  FakeServer server([](const v1::GenerateRequest&, int) {
    Reply reply;
    reply.status = {grpc::StatusCode::UNAVAILABLE, "away"};
    return reply;
  });
  RetryingCalls calls(server.channel(), Quick());
  calls.Start(0, {});
  const FinalResult result = Wait(&calls);
  EXPECT_EQ(result.call.error.message, "away");
  EXPECT_EQ(result.attempts, 4);
}

TEST(ClientRetry, OtherErrorsAreFinal) {
  FakeServer server([](const v1::GenerateRequest&, int) {
    Reply reply;
    reply.status = {grpc::StatusCode::INVALID_ARGUMENT, "bad"};
    return reply;
  });
  RetryingCalls calls(server.channel(), Quick());
  calls.Start(0, {});
  EXPECT_EQ(Wait(&calls).attempts, 1);
}

TEST(ClientRetry, StopEndsPausesAndRunningCalls) {
  FakeServer server([](const v1::GenerateRequest& request, int) {
    Reply reply;
    if (request.request_id() == "pausing") {
      reply.status = RetryAfter(absl::Hours(1));
    } else {
      reply.hang = true;
    }
    return reply;
  });
  RetryingCalls calls(server.channel(), Quick());
  v1::GenerateRequest request;
  request.set_request_id("pausing");
  calls.Start(0, request);
  while (calls.pausing() == 0) calls.Next(Clock::now() + std::chrono::milliseconds(5));
  request.set_request_id("running");
  calls.Start(1, request);
  calls.Stop();
  grpc::StatusCode codes[2];
  for (int i = 0; i < 2; ++i) {
    const FinalResult result = Wait(&calls);
    codes[result.call.tag] = result.call.error.code;
  }
  EXPECT_EQ(codes[0], grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(codes[1], grpc::StatusCode::CANCELLED);
  EXPECT_EQ(calls.in_flight(), 0);
}

}  // namespace
}  // namespace tessera::client
