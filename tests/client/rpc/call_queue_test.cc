#include "client/rpc/call_queue.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "tests/client/fake_server.h"

namespace tessera::client {
namespace {

constexpr auto kForever = Clock::time_point::max();

std::shared_ptr<const v1::GenerateRequest> Text(const std::string& text) {
  auto request = std::make_shared<v1::GenerateRequest>();
  request->add_content()->set_text(text);
  return request;
}

TEST(ClientCallQueue, BringsTextUsageAndTimes) {
  FakeServer server([](const v1::GenerateRequest&, int) {
    Reply reply = Answer("abc");
    reply.tokens_per_delta = 2;
    reply.usage.set_kv_bytes(77);
    reply.first_delay = absl::Milliseconds(20);
    reply.delta_delay = absl::Milliseconds(10);
    return reply;
  });
  std::string streamed;
  CallQueue calls(server.channel(), [&](int64_t tag, absl::string_view text) {
    absl::StrAppend(&streamed, tag, text);
  });
  calls.Start(5, Text("hi"), absl::ZeroDuration());
  EXPECT_EQ(calls.in_flight(), 1);
  const auto result = calls.Next(kForever);
  ASSERT_TRUE(result.has_value());
  EXPECT_TRUE(result->ok()) << FormatError(result->error);
  EXPECT_EQ(result->tag, 5);
  EXPECT_EQ(result->text, "abc");
  EXPECT_EQ(streamed, "5a5b5c");
  EXPECT_EQ(result->accepted.request_id(), "r");
  EXPECT_EQ(result->finished.usage().kv_bytes(), 77);
  ASSERT_EQ(result->marks.size(), 3u);
  EXPECT_EQ(result->marks[0].tokens, 2);
  // The server slept at least this long. A slow machine may add any time.
  EXPECT_GE(result->marks[0].at - result->sent, std::chrono::milliseconds(20));
  EXPECT_GE(result->done - result->sent, std::chrono::milliseconds(40));
  EXPECT_EQ(calls.in_flight(), 0);
}

TEST(ClientCallQueue, ManyAtOnceAllComeBack) {
  FakeServer server([](const v1::GenerateRequest& request, int) {
    Reply reply = Answer(request.content(0).text());
    reply.gather = 16;
    return reply;
  });
  CallQueue calls(server.channel());
  for (int i = 0; i < 64; ++i) calls.Start(i, Text(absl::StrCat(i)), absl::ZeroDuration());
  std::set<int64_t> seen;
  while (calls.in_flight() > 0) {
    const auto result = calls.Next(kForever);
    ASSERT_TRUE(result.has_value() && result->ok());
    EXPECT_EQ(result->text, absl::StrCat(result->tag));
    seen.insert(result->tag);
  }
  EXPECT_EQ(seen.size(), 64u);
  EXPECT_GE(server.most_in_flight(), 16);
}

TEST(ClientCallQueue, ErrorsKeepWhatCameBefore) {
  FakeServer server([](const v1::GenerateRequest&, int) {
    Reply reply = Answer("ab");
    reply.status = RetryAfter(absl::Seconds(2));
    return reply;
  });
  CallQueue calls(server.channel());
  calls.Start(0, Text(""), absl::ZeroDuration());
  const auto result = calls.Next(kForever);
  EXPECT_EQ(result->error.code, grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(result->error.retry_delay, absl::Seconds(2));
  EXPECT_EQ(result->text, "ab");
}

TEST(ClientCallQueue, BrokenProtocolIsAnError) {
  FakeServer server([](const v1::GenerateRequest&, int call) {
    Reply reply = Answer("x");
    (call == 0 ? reply.finished : reply.accepted) = false;
    return reply;
  });
  CallQueue calls(server.channel());
  calls.Start(0, Text(""), absl::ZeroDuration());
  EXPECT_EQ(calls.Next(kForever)->error.message,
            "the stream ended with OK but without a `finished` event");
  calls.Start(1, Text(""), absl::ZeroDuration());
  const auto result = calls.Next(kForever);
  EXPECT_EQ(result->error.code, grpc::StatusCode::INTERNAL);
  EXPECT_NE(result->error.message.find("out of order"), std::string::npos);
}

TEST(ClientCallQueue, DeadlineCancelAndDestructorEndHangingCalls) {
  FakeServer server([](const v1::GenerateRequest&, int) {
    Reply reply = Answer("x");
    reply.hang = true;
    return reply;
  });
  const auto wait_for = [&](const std::string& text) {
    while (true) {
      for (const auto& request : server.requests()) {
        if (request.content(0).text() == text) return;
      }
      absl::SleepFor(absl::Milliseconds(1));
    }
  };
  {
    CallQueue calls(server.channel());
    calls.Start(0, Text("deadline"), absl::Milliseconds(30));
    EXPECT_EQ(calls.Next(kForever)->error.code, grpc::StatusCode::DEADLINE_EXCEEDED);
    calls.Start(1, Text("cancel"), absl::ZeroDuration());
    EXPECT_EQ(calls.Next(Clock::now() + std::chrono::milliseconds(10)), std::nullopt);
    wait_for("cancel");
    calls.CancelAll();
    EXPECT_EQ(calls.Next(kForever)->error.code, grpc::StatusCode::CANCELLED);
    calls.Start(2, Text("destructor"), absl::ZeroDuration());
    wait_for("destructor");
  }
  while (server.cancelled() < 2) absl::SleepFor(absl::Milliseconds(1));
}

TEST(ClientCallQueue, CancelEndsTheCallOfItsTagAlone) {
  FakeServer server([](const v1::GenerateRequest&, int) {
    Reply reply = Answer("a");
    reply.hang = true;
    return reply;
  });
  CallQueue calls(server.channel());
  for (int i = 0; i < 3; ++i) calls.Start(i, Text(""), absl::ZeroDuration());
  calls.Cancel(7);  // no such call
  calls.Cancel(1);
  const auto result = calls.Next(kForever);
  EXPECT_EQ(result->tag, 1);
  EXPECT_EQ(result->error.code, grpc::StatusCode::CANCELLED);
  EXPECT_EQ(calls.Next(Clock::now() + std::chrono::milliseconds(20)), std::nullopt);
}

TEST(ClientCallQueue, SlowReaderPausesBeforeEachMessageAndCanBeCancelled) {
  FakeServer server([](const v1::GenerateRequest&, int) { return Answer("abc"); });
  CallQueue calls(server.channel());
  calls.Start(0, Text(""), absl::ZeroDuration(), absl::Milliseconds(10));
  const auto result = calls.Next(kForever);
  EXPECT_TRUE(result->ok()) << FormatError(result->error);
  EXPECT_EQ(result->text, "abc");
  // `accepted` is read at once, three deltas and `finished` after a pause each.
  EXPECT_GE(result->marks[2].at - result->sent, std::chrono::milliseconds(30));
  EXPECT_GE(result->done - result->sent, std::chrono::milliseconds(40));
  calls.Start(1, Text(""), absl::ZeroDuration(), absl::Milliseconds(300));
  absl::SleepFor(absl::Milliseconds(20));  // the call is most likely in its first pause
  calls.Cancel(1);
  EXPECT_EQ(calls.Next(kForever)->tag, 1);
}

TEST(ClientCallQueue, WakeIsRememberedOnce) {
  FakeServer server([](const v1::GenerateRequest&, int) { return Answer(""); });
  CallQueue calls(server.channel());
  calls.Wake();
  EXPECT_EQ(calls.Next(kForever), std::nullopt);
  EXPECT_EQ(calls.Next(Clock::now() + std::chrono::milliseconds(5)), std::nullopt);
}

TEST(ClientCallQueue, NobodyListening) {
  std::string address;
  {
    FakeServer server([](const v1::GenerateRequest&, int) { return Answer(""); });
    address = server.address();
  }
  CallQueue calls(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  calls.Start(0, Text(""), absl::ZeroDuration());
  EXPECT_EQ(calls.Next(kForever)->error.code, grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace tessera::client
