// Tokenizer, Control, health, reflection and the daemon's life, over real channels.
#include <chrono>
#include <future>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;

bool Never(absl::Duration) { return false; }

TEST(TokenizerServiceTest, RoundTrip) {
  TestServer server;
  grpc::ClientContext c1, c2, c3;
  v1::TokenizeRequest text;
  text.set_text("What color is the circle? </s> <image>");
  v1::TokenizeResponse tokens;
  ASSERT_TRUE(server.tokenizer().Tokenize(&c1, text, &tokens).ok());
  ASSERT_GT(tokens.ids_size(), 5);
  EXPECT_EQ(tokens.ids_size(), tokens.pieces_size());
  EXPECT_EQ(tokens.ids(0), 1);  // BOS
  for (int i = 1; i < tokens.ids_size(); ++i) {
    EXPECT_NE(tokens.ids(i), 2);  // </s> and <image> are plain text here
    EXPECT_NE(tokens.ids(i), 512);
  }
  v1::DetokenizeRequest ids;
  ids.mutable_ids()->Add(tokens.ids().begin() + 1, tokens.ids().end());
  v1::DetokenizeResponse back;
  ASSERT_TRUE(server.tokenizer().Detokenize(&c2, ids, &back).ok());
  EXPECT_EQ(back.text(), text.text());
  text.set_add_special_tokens(false);
  v1::TokenizeResponse bare;
  ASSERT_TRUE(server.tokenizer().Tokenize(&c3, text, &bare).ok());
  EXPECT_EQ(bare.ids_size(), tokens.ids_size() - 1);
}

TEST(TokenizerServiceTest, CountsLikeGenerate) {
  TestServer server;
  const std::string png = ReadTestFile("tests/eval/images/01_00_00.png");
  v1::CountTokensRequest count;
  v1::GenerateRequest request;
  for (auto* content : {count.mutable_content(), request.mutable_content()}) {
    content->Add()->set_text("Look: ");
    content->Add()->mutable_image()->set_data(png);
    content->Add()->set_text("What color is the circle?");
  }
  grpc::ClientContext context;
  v1::CountTokensResponse counted;
  const grpc::Status status = server.tokenizer().CountTokens(&context, count, &counted);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(counted.image_tokens(), 64);
  grpc::ClientContext generate;
  auto reader = server.inference().Generate(&generate, request);
  const auto submitted = server.engine().Wait();
  EXPECT_EQ(static_cast<int>(submitted.request.prompt.ids.size()), counted.tokens());
  EXPECT_EQ(submitted.request.prompt.image_tokens, 64);
  EXPECT_GT(submitted.request.image_decode_seconds, 0);
  generate.TryCancel();
  reader->Finish();
}

TEST(TokenizerServiceTest, AppliesTemplate) {
  TestServer server;
  v1::ApplyTemplateRequest request;
  auto* message = request.add_messages();
  message->set_role(v1::Message::ROLE_USER);
  message->add_content()->mutable_image()->set_data("not looked at");
  message->add_content()->set_text("\nWhat is this?");
  grpc::ClientContext context;
  v1::ApplyTemplateResponse response;
  const grpc::Status status = server.tokenizer().ApplyTemplate(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_THAT(response.prompt(), HasSubstr("USER: <image>\nWhat is this?"));
  EXPECT_THAT(response.prompt(), HasSubstr("ASSISTANT:"));
}

TEST(TokenizerServiceTest, NamesBadFields) {
  TestServer server([](ServerConfig* c) { c->max_text_bytes = 10; });
  grpc::ClientContext c1, c2, c3;
  v1::TokenizeRequest text;
  text.set_text("eleven bytes");
  v1::TokenizeResponse tokens;
  EXPECT_EQ(View(server.tokenizer().Tokenize(&c1, text, &tokens)).field, "text");
  v1::DetokenizeRequest ids;
  ids.add_ids(1);
  ids.add_ids(-1);
  v1::DetokenizeResponse back;
  EXPECT_EQ(View(server.tokenizer().Detokenize(&c2, ids, &back)).field, "ids[1]");
  v1::CountTokensResponse counted;
  EXPECT_EQ(View(server.tokenizer().CountTokens(&c3, {}, &counted)).field, "content");
}

TEST(ControlServiceTest, ReportsServerModelLoadAndCache) {
  TestServer server([](ServerConfig* c) { c->effective = {{"listen", "x"}}; });
  grpc::ClientContext c1, c2, c3, c4;
  v1::GetServerInfoResponse info;
  ASSERT_TRUE(server.control().GetServerInfo(&c1, {}, &info).ok());
  EXPECT_EQ(info.state(), v1::GetServerInfoResponse::STATE_SERVING);
  EXPECT_EQ(info.device(), "fake (1 thread)");
  EXPECT_NE(info.version(), "");
  EXPECT_EQ(info.flags().at("listen"), "x");
  v1::GetModelInfoResponse model;
  ASSERT_TRUE(server.control().GetModelInfo(&c2, {}, &model).ok());
  EXPECT_EQ(model.name(), "demo");
  EXPECT_EQ(model.vocab_size(), 576);
  EXPECT_EQ(model.tokens_per_image(), 64);
  EXPECT_EQ(model.image_side(), 112);
  EXPECT_EQ(model.parameters(), 42);
  EXPECT_EQ(model.kv_bytes_per_token(), 8 * 4 * 128 * 2 * 2);  // layers, heads, dim, K and V, half
  EXPECT_THAT(model.kv_policies(), Contains("none"));
  EXPECT_TRUE(model.supports_images());
  EXPECT_FALSE(model.supports_lora());
  v1::GetLoadResponse load;
  ASSERT_TRUE(server.control().GetLoad(&c3, {}, &load).ok());
  EXPECT_EQ(load.running(), 3);
  EXPECT_EQ(load.waiting(), 2);
  EXPECT_EQ(load.kv_usage(), 0.25);
  v1::GetCacheStatsResponse cache;
  ASSERT_TRUE(server.control().GetCacheStats(&c4, {}, &cache).ok());
  ASSERT_EQ(cache.formats_size(), kNumFormats);
  EXPECT_EQ(cache.formats(0).pages(), 7);
  EXPECT_EQ(cache.stranded_bytes(), 50);
}

TEST(ControlServiceTest, AbortEndsTheCall) {
  TestServer server;
  v1::GenerateRequest request = TextRequest("Hello");
  request.set_request_id("victim");
  auto answer =
      std::async(std::launch::async, [&] { return Generate(server.inference(), request); });
  const auto submitted = server.engine().Wait();
  grpc::ClientContext c1, c2;
  v1::AbortRequest abort;
  abort.set_request_id("victim");
  v1::AbortResponse response;
  EXPECT_TRUE(server.control().Abort(&c1, abort, &response).ok());
  const ErrorView error = View(answer.get().status);
  EXPECT_EQ(error.code, grpc::StatusCode::CANCELLED);
  EXPECT_THAT(error.message, HasSubstr("operator"));
  EXPECT_TRUE(submitted.output_queue->cancelled());
  abort.set_request_id("nobody");
  EXPECT_EQ(View(server.control().Abort(&c2, abort, &response)).reason, "REQUEST_NOT_FOUND");
}

TEST(ControlServiceTest, FlushReachesTheEngine) {
  TestServer server;
  grpc::ClientContext context;
  v1::FlushCacheResponse response;
  EXPECT_TRUE(server.control().FlushCache(&context, {}, &response).ok());
  EXPECT_EQ(server.engine().flushes, 1);
}

TEST(ControlServiceTest, IsNotOnThePublicListener) {
  TestServer server;
  auto control = v1::Control::NewStub(server.channel());
  auto inference = v1::Inference::NewStub(server.admin_channel());
  grpc::ClientContext context;
  v1::GetLoadResponse load;
  EXPECT_EQ(control->GetLoad(&context, {}, &load).error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(Generate(*inference, TextRequest("x")).status.error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

// grpc.health.v1 without its generated code: HealthCheckRequest{1: service} and
// HealthCheckResponse{1: status} with SERVING = 1, NOT_SERVING = 2.
grpc::ByteBuffer HealthRequest(const std::string& service) {
  std::string wire;
  if (!service.empty()) wire = absl::StrCat("\n", std::string(1, char(service.size())), service);
  grpc::Slice slice(wire);
  return grpc::ByteBuffer(&slice, 1);
}

int HealthStatus(const grpc::ByteBuffer& response) {
  grpc::Slice slice;
  if (!response.DumpToSingleSlice(&slice).ok()) return -1;
  return slice.size() == 2 && slice.begin()[0] == 8 ? slice.begin()[1] : 0;
}

int CheckHealth(std::shared_ptr<grpc::Channel> channel, const std::string& service) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check",
                                    HealthRequest(service), &queue);
  call->StartCall();
  grpc::ByteBuffer response;
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  void* tag;
  bool ok;
  queue.Next(&tag, &ok);
  return status.ok() ? HealthStatus(response) : -static_cast<int>(status.error_code());
}

constexpr int kHealthServing = 1, kHealthNotServing = 2;

TEST(HealthTest, ReadinessAndLivenessAreSeparate) {
  TestServer server([](ServerConfig* c) { c->liveness_timeout = absl::Seconds(1); });
  for (auto channel : {server.channel(), server.admin_channel()}) {
    EXPECT_EQ(CheckHealth(channel, ""), kHealthServing);
    EXPECT_EQ(CheckHealth(channel, "tessera.v1.Inference"), kHealthServing);
    EXPECT_EQ(CheckHealth(channel, "live"), kHealthServing);
    EXPECT_EQ(CheckHealth(channel, "nonsense"), -grpc::StatusCode::NOT_FOUND);
  }
  server.engine().heartbeat_age_ms = 5000;  // a step hangs
  EXPECT_TRUE(
      Eventually([&] { return CheckHealth(server.channel(), "live") == kHealthNotServing; }));
  EXPECT_EQ(CheckHealth(server.channel(), ""), kHealthServing);
  server.engine().heartbeat_age_ms = 0;
  EXPECT_TRUE(Eventually([&] { return CheckHealth(server.channel(), "live") == kHealthServing; }));
  grpc::ClientContext context;
  v1::DrainResponse response;
  ASSERT_TRUE(server.control().Drain(&context, {}, &response).ok());
  EXPECT_EQ(CheckHealth(server.channel(), ""), kHealthNotServing);
  EXPECT_EQ(CheckHealth(server.channel(), "live"), kHealthServing);
}

TEST(HealthTest, WatchSeesTheDrain) {
  TestServer server;
  grpc::GenericStub stub(server.channel());
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto next = [&queue] {
    void* tag;
    bool ok = false;
    queue.Next(&tag, &ok);
    return ok;
  };
  auto call = stub.PrepareCall(&context, "/grpc.health.v1.Health/Watch", &queue);
  call->StartCall(nullptr);
  ASSERT_TRUE(next());
  call->Write(HealthRequest(""), nullptr);
  ASSERT_TRUE(next());
  grpc::ByteBuffer response;
  call->Read(&response, nullptr);
  ASSERT_TRUE(next());
  EXPECT_EQ(HealthStatus(response), kHealthServing);
  server.daemon().lifecycle().BeginDrain(SteadyNow());
  call->Read(&response, nullptr);
  ASSERT_TRUE(next());
  EXPECT_EQ(HealthStatus(response), kHealthNotServing);
  context.TryCancel();
  grpc::Status status;
  call->Finish(&status, nullptr);
  next();
}

TEST(ReflectionTest, ListsServices) {
  TestServer server;
  grpc::GenericStub stub(server.channel());
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto next = [&queue] {
    void* tag;
    bool ok = false;
    queue.Next(&tag, &ok);
    return ok;
  };
  auto call = stub.PrepareCall(
      &context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  call->StartCall(nullptr);
  ASSERT_TRUE(next());
  grpc::Slice list(std::string("\x3a\x01*"));  // ServerReflectionRequest{7: list_services}
  call->Write(grpc::ByteBuffer(&list, 1), nullptr);
  ASSERT_TRUE(next());
  grpc::ByteBuffer response;
  call->Read(&response, nullptr);
  ASSERT_TRUE(next());
  grpc::Slice slice;
  ASSERT_TRUE(response.DumpToSingleSlice(&slice).ok());
  const std::string names(reinterpret_cast<const char*>(slice.begin()), slice.size());
  EXPECT_THAT(names, HasSubstr("tessera.v1.Inference"));
  EXPECT_THAT(names, HasSubstr("tessera.v1.Tokenizer"));
  context.TryCancel();
  grpc::Status status;
  call->Finish(&status, nullptr);
  next();
}

TEST(DaemonTest, DrainRefusesNewAndFinishesRunning) {
  TestServer server([](ServerConfig* c) {
    c->drain_delay = absl::Milliseconds(300);
    c->drain_timeout = absl::Seconds(20);
  });
  auto running = std::async(std::launch::async,
                            [&] { return Generate(server.inference(), TextRequest("one")); });
  const auto first = server.engine().Wait(0);
  auto drained = std::async(std::launch::async, [&] { server.daemon().Drain(Never); });
  ASSERT_TRUE(Eventually(
      [&] { return server.daemon().lifecycle().state() == Lifecycle::State::kDraining; }));
  // Still taken during the delay: load balancers have not noticed yet.
  auto late = std::async(std::launch::async,
                         [&] { return Generate(server.inference(), TextRequest("two")); });
  const auto second = server.engine().Wait(1);
  ASSERT_TRUE(
      Eventually([&] { return !server.daemon().lifecycle().CheckAccepting(SteadyNow()).ok(); }));
  const ErrorView refused = View(Generate(server.inference(), TextRequest("three")).status);
  EXPECT_EQ(refused.code, grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(refused.reason, "DRAINING");
  EXPECT_TRUE(refused.retry.has_value());
  EXPECT_FALSE(first.output_queue->cancelled());
  for (const auto& submitted : {first, second}) {
    submitted.output_queue->Put(TextEvent("done", {1}), SteadyNow());
    submitted.output_queue->Put(LastEvent(), SteadyNow());
  }
  EXPECT_EQ(running.get().text, "done");
  EXPECT_EQ(late.get().text, "done");
  drained.get();
  EXPECT_TRUE(server.engine().stopped);
}

TEST(DaemonTest, DrainEndsWhatIsLeftAtTheTimeout) {
  TestServer server([](ServerConfig* c) { c->drain_timeout = absl::Milliseconds(200); });
  auto stuck = std::async(std::launch::async,
                          [&] { return Generate(server.inference(), TextRequest("one")); });
  const auto submitted = server.engine().Wait();
  const absl::Time start = SteadyNow();
  server.daemon().Drain(Never);
  EXPECT_GE(SteadyNow() - start, absl::Milliseconds(200));
  EXPECT_LT(SteadyNow() - start, absl::Seconds(6));
  const ErrorView error = View(stuck.get().status);
  EXPECT_EQ(error.code, grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(error.retry.has_value());
  EXPECT_TRUE(submitted.output_queue->cancelled());
}

TEST(DaemonTest, SecondSignalHurries) {
  TestServer server([](ServerConfig* c) {
    c->drain_delay = absl::Hours(1);
    c->drain_timeout = absl::Hours(1);
  });
  auto stuck = std::async(std::launch::async,
                          [&] { return Generate(server.inference(), TextRequest("one")); });
  server.engine().Wait();
  const absl::Time start = SteadyNow();
  int asked = 0;
  server.daemon().Drain([&asked](absl::Duration) { return ++asked == 3; });
  EXPECT_LT(SteadyNow() - start, absl::Seconds(6));
  EXPECT_EQ(asked, 3);
  EXPECT_EQ(stuck.get().status.error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(DaemonTest, TakenPortsAreNamed) {
  TestServer first;
  MemoryLogger log;
  const auto never = [](const ServerConfig&, Observer*, Runtime*) {
    return absl::InternalError("must fail before loading");
  };
  ServerConfig config;
  config.model = "unused";
  config.metrics_listen = "off";
  config.listen = first.daemon().listen_address();
  config.admin_listen = "127.0.0.1:0";
  auto second = Daemon::Start(config, &log, never, "fake");
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr(absl::StrCat("--listen: ", config.listen, ": another process listens")));
  config.listen = "127.0.0.1:0";
  config.admin_listen = first.daemon().admin_address();
  second = Daemon::Start(config, &log, never, "fake");
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("--admin_listen: "));
  config.admin_listen = "off";
  config.metrics_listen = first.daemon().listen_address();
  second = Daemon::Start(config, &log, never, "fake");
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("--metrics_listen: "));
}

TEST(DaemonTest, AnswersWhileTheModelLoads) {
  MemoryLogger log;
  ServerConfig config;
  config.model = "unused";
  config.metrics_listen = "off";
  config.listen = absl::StrCat("unix:", testing::TempDir(), "loading.", getpid());
  config.admin_listen = config.listen + "a";
  std::promise<void> go;
  auto started = std::async(std::launch::async, [&] {
    const auto slow = [&](const ServerConfig&, Observer*, Runtime*) {
      go.get_future().wait();
      return absl::InvalidArgumentError("config.json: broken");
    };
    return Daemon::Start(config, &log, slow, "fake").status();
  });
  auto channel = grpc::CreateChannel(config.listen, grpc::InsecureChannelCredentials());
  ASSERT_TRUE(
      channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(10)));
  EXPECT_EQ(CheckHealth(channel, ""), kHealthNotServing);
  EXPECT_EQ(CheckHealth(channel, "live"), kHealthServing);
  auto stub = v1::Inference::NewStub(channel);
  const ErrorView error = View(Generate(*stub, TextRequest("early")).status);
  EXPECT_EQ(error.code, grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(error.reason, "STARTING");
  auto control = v1::Control::NewStub(
      grpc::CreateChannel(config.admin_listen, grpc::InsecureChannelCredentials()));
  grpc::ClientContext c1, c2;
  v1::GetServerInfoResponse info;
  ASSERT_TRUE(control->GetServerInfo(&c1, {}, &info).ok());
  EXPECT_EQ(info.state(), v1::GetServerInfoResponse::STATE_STARTING);
  v1::GetLoadResponse load;
  EXPECT_EQ(View(control->GetLoad(&c2, {}, &load)).reason, "STARTING");
  go.set_value();
  EXPECT_EQ(started.get().message(), "config.json: broken");
}

}  // namespace
}  // namespace tessera
