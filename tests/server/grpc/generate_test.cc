// The streaming call, over a real channel, around an engine that does what each test says.
#include <future>
#include <thread>

#include "absl/strings/str_cat.h"
#include "engine/request/field_error.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using testing::HasSubstr;
using testing::Not;

void Put(const FakeEngine::Submitted& to, Event event) {
  to.output_queue->Put(std::move(event), SteadyNow());
}

std::future<Answer> GenerateAsync(TestServer& server, const v1::GenerateRequest& request) {
  return std::async(std::launch::async,
                    [&server, request] { return Generate(server.inference(), request); });
}

// Lines are written when a call is done, which its client may learn a little earlier.
bool LogShows(TestServer& server, const std::string& text) {
  return Eventually([&] { return server.log().text().find(text) != std::string::npos; });
}

TEST(GenerateTest, TheLogHasTheCallersTrace) {
  const std::string trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  for (const std::string& sent : {trace, std::string("anything else")}) {
    TestServer server;
    grpc::ClientContext context;
    context.AddMetadata("traceparent", sent);
    auto answer = std::async(std::launch::async, [&] {
      return Generate(server.inference(), TextRequest("Hello"), &context);
    });
    Put(server.engine().Wait(), LastEvent());
    EXPECT_TRUE(answer.get().status.ok());
    EXPECT_TRUE(LogShows(server, "first_token_seconds"));
    EXPECT_EQ(server.log().text().find(sent) != std::string::npos, sent == trace);
  }
}

TEST(GenerateTest, StreamsEventsInOrder) {
  TestServer server;
  v1::GenerateRequest request = TextRequest("Hello");
  request.mutable_response()->set_token_ids(true);
  auto answer = GenerateAsync(server, request);
  const auto submitted = server.engine().Wait();
  EXPECT_EQ(submitted.request.stop.max_tokens, 1024);
  EXPECT_NE(submitted.request.id, "");
  Put(submitted, TextEvent("one", {5}));
  Put(submitted, TextEvent(" two", {6, 7}));
  Event last = LastEvent();
  last.text = " three";
  last.ids = {8};
  last.usage.output_tokens = 4;
  Put(submitted, std::move(last));

  const Answer got = answer.get();
  EXPECT_TRUE(got.status.ok()) << got.status.error_message();
  ASSERT_TRUE(got.accepted.has_value());
  EXPECT_EQ(got.accepted->request_id(), submitted.request.id);
  EXPECT_EQ(got.accepted->model(), "demo");
  EXPECT_EQ(got.accepted->kv_policy(), "none");
  EXPECT_EQ(got.accepted->prompt_tokens(), static_cast<int>(submitted.request.prompt.ids.size()));
  EXPECT_EQ(got.text, "one two three");
  int tokens = 0;
  std::vector<int> ids;
  for (const v1::TokenDelta& delta : got.deltas) {
    tokens += delta.tokens();
    ids.insert(ids.end(), delta.token_ids().begin(), delta.token_ids().end());
  }
  EXPECT_EQ(tokens, 4);
  EXPECT_THAT(ids, testing::ElementsAre(5, 6, 7, 8));
  EXPECT_EQ(got.finished->usage().output_tokens(), 4);
  EXPECT_TRUE(Eventually([&] {
    return server.daemon().metrics().Value(Metric::kRequests, {"Generate", "OK"}) == 1;
  }));
}

TEST(GenerateTest, EventsThatComeBeforeAcceptedWait) {
  // The engine may answer before Submit has returned to the worker.
  TestServer server;
  auto answer = GenerateAsync(server, TextRequest("Hello"));
  const auto submitted = server.engine().Wait();
  for (int i = 0; i < 300; ++i)
    Put(submitted, TextEvent("x", {i % 10}));  // more than the box holds
  Put(submitted, LastEvent());
  const Answer got = answer.get();
  EXPECT_TRUE(got.status.ok());
  EXPECT_EQ(got.text, std::string(300, 'x'));
}

TEST(GenerateTest, EngineErrorsEndTheCall) {
  const std::pair<absl::Status, const char*> kCases[] = {
      {absl::CancelledError("x"), "CANCELLED"},
      {absl::DeadlineExceededError("x"), "DEADLINE_EXCEEDED"},
      {absl::UnavailableError("x"), "DRAINING"},
      {absl::InternalError("secret 0x7f"), "INTERNAL"}};
  TestServer server;
  size_t n = 0;
  for (const auto& [status, reason] : kCases) {
    auto answer = GenerateAsync(server, TextRequest("Hello"));
    const auto submitted = server.engine().Wait(n++);
    Put(submitted, TextEvent("part", {1}));
    Put(submitted, LastEvent(status));
    const Answer got = answer.get();
    const ErrorView error = View(got.status);
    EXPECT_EQ(static_cast<int>(error.code), static_cast<int>(status.code()));
    EXPECT_EQ(error.reason, reason);
    EXPECT_EQ(error.request_id, submitted.request.id);
    EXPECT_EQ(got.text, "part");
    EXPECT_THAT(error.message, Not(HasSubstr("secret")));
  }
  EXPECT_TRUE(LogShows(server, "secret"));  // the operator sees it
}

TEST(GenerateTest, RefusalsAreStatusesWithDetails) {
  TestServer server;
  server.engine().submit_status = absl::ResourceExhaustedError("the queue is full");
  ErrorView error = View(Generate(server.inference(), TextRequest("Hello")).status);
  EXPECT_EQ(error.code, grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(error.reason, "QUEUE_FULL");
  EXPECT_TRUE(error.retry.has_value());

  server.engine().submit_status =
      RequestFieldError({RequestField::kId}, "live", absl::StatusCode::kAlreadyExists);
  error = View(Generate(server.inference(), TextRequest("Hello")).status);
  EXPECT_EQ(error.reason, "REQUEST_ID_IN_USE");
  EXPECT_EQ(error.field, "request_id");

  v1::GenerateRequest bad = TextRequest("Hello");
  bad.add_content()->mutable_image()->set_data("no picture");
  error = View(Generate(server.inference(), bad).status);
  EXPECT_EQ(error.code, grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(error.field, "content[1].image");
  EXPECT_EQ(server.engine().count(), 0u);
}

TEST(GenerateTest, DroppedStreamCancels) {
  TestServer server;
  grpc::ClientContext context;
  auto reader = server.inference().Generate(&context, TextRequest("Hello"));
  const auto submitted = server.engine().Wait();
  EXPECT_FALSE(submitted.output_queue->cancelled());
  context.TryCancel();
  EXPECT_TRUE(Eventually([&] { return submitted.output_queue->cancelled(); }));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  Put(submitted, LastEvent(absl::CancelledError("x")));  // as the engine does; no one reads it
  EXPECT_TRUE(Eventually([&] {
    return server.daemon().metrics().Value(Metric::kRequests, {"Generate", "CANCELLED"}) == 1;
  }));
}

TEST(GenerateTest, ClientDeadlineReachesTheEngine) {
  TestServer server;
  const absl::Time before = SteadyNow();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  const Answer got = Generate(server.inference(), TextRequest("Hello"), &context);
  EXPECT_EQ(got.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  const auto submitted = server.engine().Wait();
  EXPECT_GT(submitted.request.deadline, before);
  EXPECT_LT(submitted.request.deadline, before + absl::Seconds(10));
  EXPECT_TRUE(Eventually([&] { return submitted.output_queue->cancelled(); }));
  // A client whose time is up resets the stream; that may arrive before the server's own clock says
  // so, and then looks like any other cancellation.
  const Metrics& metrics = server.daemon().metrics();
  EXPECT_TRUE(Eventually([&] {
    return metrics.Value(Metric::kRequests, {"Generate", "DEADLINE_EXCEEDED"}) +
               metrics.Value(Metric::kRequests, {"Generate", "CANCELLED"}) ==
           1;
  }));
}

TEST(GenerateTest, ServerCapsTheDeadline) {
  TestServer server([](ServerConfig* c) { c->max_request_time = absl::Seconds(100); });
  grpc::ClientContext context;
  auto reader = server.inference().Generate(&context, TextRequest("Hello"));
  const auto submitted = server.engine().Wait();
  EXPECT_EQ(submitted.request.deadline, submitted.request.received + absl::Seconds(100));
  context.TryCancel();
  reader->Finish();
}

TEST(GenerateTest, RequestIdComesFromFieldHeaderOrServer) {
  TestServer server;
  size_t n = 0;
  const auto ask = [&](const char* field, const char* header) {
    v1::GenerateRequest request = TextRequest("Hello");
    request.set_request_id(field);
    grpc::ClientContext context;
    if (*header != '\0') context.AddMetadata("x-request-id", header);
    auto answer = std::async(std::launch::async,
                             [&] { return Generate(server.inference(), request, &context); });
    const auto submitted = server.engine().Wait(n++);
    Put(submitted, LastEvent());
    EXPECT_TRUE(answer.get().status.ok());
    const auto& echoed = context.GetServerInitialMetadata();
    const auto found = echoed.find("x-request-id");
    EXPECT_NE(found, echoed.end());
    EXPECT_EQ(std::string(found->second.data(), found->second.size()), submitted.request.id);
    return submitted.request.id;
  };
  EXPECT_EQ(ask("mine", "header"), "mine");
  EXPECT_EQ(ask("", "header"), "header");
  EXPECT_NE(ask("", ""), ask("", ""));
}

TEST(GenerateTest, PromptsAndAnswersAreNotLogged) {
  TestServer server;
  v1::GenerateRequest request = TextRequest("kingfisher question");
  request.set_request_id("logged-id");
  auto answer = GenerateAsync(server, request);
  const auto submitted = server.engine().Wait();
  Put(submitted, TextEvent("heron answer", {1}));
  Put(submitted, LastEvent());
  answer.get();
  EXPECT_TRUE(
      Eventually([&] { return server.log().text().find("logged-id") != std::string::npos; }));
  EXPECT_THAT(server.log().text(), Not(HasSubstr("kingfisher")));
  EXPECT_THAT(server.log().text(), Not(HasSubstr("heron")));
}

TEST(GenerateTest, ClientThatStopsReadingIsGivenUp) {
  TestServer server([](ServerConfig* c) { c->stall_timeout = absl::Milliseconds(200); });
  grpc::ClientContext context;
  auto reader = server.inference().Generate(&context, TextRequest("Hello"));
  const auto submitted = server.engine().Wait();
  // Far more than flow control lets through: the write stays pending.
  Put(submitted, TextEvent(std::string(8 << 20, 'x'), {1}));
  EXPECT_TRUE(Eventually([&] { return submitted.output_queue->cancelled(); }));
  EXPECT_TRUE(Eventually([&] {
    return server.daemon().metrics().Value(Metric::kRequests, {"Generate", "CANCELLED"}) == 1;
  }));
  EXPECT_TRUE(LogShows(server, "stopped reading"));
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST(GenerateTest, ClientThatDoesNotReadTheEndIsGivenUpToo) {
  TestServer server([](ServerConfig* c) { c->stall_timeout = absl::Milliseconds(200); });
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);  // the window stays at 65,535 bytes
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  auto stub = v1::Inference::NewStub(grpc::CreateCustomChannel(
      server.daemon().listen_address(), grpc::InsecureChannelCredentials(), arguments));
  grpc::ClientContext context;
  auto reader = stub->Generate(&context, TextRequest("Hello"));
  const auto submitted = server.engine().Wait();
  // The delta fits into the window, the end does not: only the finish is pending.
  Put(submitted, TextEvent(std::string(64'000, 'x'), {1}));
  Event last = LastEvent();
  last.usage.policy = std::string(3000, 'p');
  Put(submitted, std::move(last));
  EXPECT_TRUE(LogShows(server, "stopped reading"));
  EXPECT_TRUE(Eventually([&] {
    return server.daemon().metrics().Value(Metric::kRequests, {"Generate", "CANCELLED"}) == 1;
  }));
  context.TryCancel();
  reader->Finish();
}

TEST(GenerateTest, FullWorkerQueueRefuses) {
  TestServer server([](ServerConfig* c) {
    c->max_queue = 1;
    c->decode_threads = 1;
  });
  std::promise<void> started, release;
  ASSERT_TRUE(server.daemon().workers().TrySubmit([&] {
    started.set_value();
    release.get_future().wait();
  }));
  started.get_future().wait();  // the one worker is busy
  auto waits = GenerateAsync(server, TextRequest("one"));
  ASSERT_TRUE(Eventually([&] { return server.daemon().workers().waiting() == 1; }));
  const ErrorView generate = View(Generate(server.inference(), TextRequest("two")).status);
  EXPECT_EQ(generate.code, grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(generate.reason, "QUEUE_FULL");
  EXPECT_TRUE(generate.retry.has_value());
  grpc::ClientContext context;
  v1::TokenizeRequest text;
  text.set_text("three");
  v1::TokenizeResponse tokens;
  EXPECT_EQ(View(server.tokenizer().Tokenize(&context, text, &tokens)).reason, "QUEUE_FULL");
  release.set_value();
  Put(server.engine().Wait(), LastEvent());
  EXPECT_TRUE(waits.get().status.ok());
}

// Cancelled while the worker has not begun: nothing may reach the engine.
TEST(GenerateTest, CancelBeforeTheWorkerBegins) {
  TestServer server([](ServerConfig* c) { c->decode_threads = 1; });
  std::promise<void> started, release;
  ASSERT_TRUE(server.daemon().workers().TrySubmit([&] {
    started.set_value();
    release.get_future().wait();
  }));
  started.get_future().wait();
  grpc::ClientContext context;
  auto reader = server.inference().Generate(&context, TextRequest("Hello"));
  ASSERT_TRUE(Eventually([&] { return server.daemon().workers().waiting() == 1; }));
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([&] {
    return server.daemon().metrics().Value(Metric::kRequests, {"Generate", "CANCELLED"}) == 1;
  }));
  release.set_value();
  ASSERT_TRUE(Eventually([&] { return server.daemon().workers().waiting() == 0; }));
  auto answer = GenerateAsync(server, TextRequest("next"));
  Put(server.engine().Wait(), LastEvent());
  EXPECT_TRUE(answer.get().status.ok());
  EXPECT_EQ(server.engine().count(), 1u);
}

TEST(GenerateTest, CancelStormLeavesNothingBehind) {
  TestServer server;
  std::atomic<bool> stop{false};
  // The engine's side: ends whatever was cancelled, answers the rest.
  std::thread engine([&] {
    size_t next = 0;
    while (!stop || next < server.engine().count()) {
      if (next >= server.engine().count()) {
        std::this_thread::yield();
        continue;
      }
      const auto submitted = server.engine().Wait(next++);
      for (int i = 0; i < 5 && !submitted.output_queue->cancelled(); ++i) {
        Put(submitted, TextEvent("word ", {i}));
      }
      Put(submitted, LastEvent(submitted.output_queue->cancelled() ? absl::CancelledError("x")
                                                                   : absl::OkStatus()));
    }
  });
  std::atomic<int> finished{0}, cancelled{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < 4; ++c) {
    clients.emplace_back([&, c] {
      for (int i = 0; i < 100; ++i) {
        grpc::ClientContext context;
        auto reader = server.inference().Generate(&context, TextRequest("Hello"));
        v1::GenerateResponse response;
        const int reads = (i * 7 + c) % 9;  // 0: at once; 8: to the end
        int got = 0;
        while (got < reads && reader->Read(&response)) ++got;
        if (reads < 8) context.TryCancel();
        while (reader->Read(&response)) {
        }
        (reader->Finish().ok() ? finished : cancelled)++;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  stop = true;
  engine.join();
  EXPECT_EQ(finished + cancelled, 400);
  EXPECT_GT(cancelled, 0);
  EXPECT_GT(finished, 0);
  EXPECT_TRUE(Eventually([&] {
    server.daemon().metrics().Scrape();
    return server.daemon().metrics().Value(Metric::kRpcsInFlight) == 0;
  }));
}

}  // namespace
}  // namespace tessera
