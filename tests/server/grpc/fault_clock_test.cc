// The wall clock jumps by an hour, either way, while the daemon serves.
#include <atomic>
#include <cstdlib>
#include <future>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/digest.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/engine/wall_clock.h"
#include "tests/server/certificates.h"
#include "tests/server/http_client.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using testing::WallClockJump;

std::string Line(const std::string& token, const std::string& rest) {
  return absl::StrCat(HexDigest(Hasher().Add(token.data(), token.size()).Finish()), " ", rest,
                      "\n");
}

// The parameter: by how many hours.
class ServerClockTest : public ::testing::TestWithParam<int> {
 protected:
  ServerClockTest() {
    folder_.Write("tokens", Line("a", "alice requests_per_minute=2"));
    server_ = std::make_unique<TestServer>([this](ServerConfig* c) {
      c->token_file = folder_.Path("tokens");
      c->http_listen = "127.0.0.1:0";
      c->drain_delay = c->drain_timeout = absl::Minutes(30);
      c->max_request_time = absl::Minutes(30);
      c->idle_timeout = absl::Minutes(30);
    });
  }
  absl::Duration by() const { return absl::Hours(GetParam()); }
  static void Authorize(grpc::ClientContext* context) {
    context->AddMetadata("authorization", "Bearer a");
  }
  int Tokenize(HttpClient& client) {
    return client.Post("/tokenize", R"({"prompt":"a"})", {"Authorization: Bearer a"}).status;
  }
  double Reloads() { return server_->daemon().metrics().Value(Metric::kReloads, {"tokens", "ok"}); }
  // The daemon's watcher has looked at its calls and files since now.
  void AwaitWatcher() {
    const double before = Reloads();
    folder_.Write("tokens", Line("a", "alice requests_per_minute=2") + Line("b", "bob"));
    EXPECT_TRUE(Eventually([&] { return Reloads() > before; }));
  }

  TestCertificates folder_;
  std::unique_ptr<TestServer> server_;
};

TEST_P(ServerClockTest, ASlowReaderIsNotGivenUpAndAnswersEnd) {
  grpc::ClientContext context;
  Authorize(&context);
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(30));
  auto reader = server_->inference().Generate(&context, TextRequest("Hello"));
  const auto submitted = server_->engine().Wait();
  submitted.output_queue->Put(TextEvent(std::string(3 << 20, 'x'), {1}), SteadyNow());
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));  // accepted; the write of the text is pending now
  const WallClockJump jump(by());
  AwaitWatcher();
  EXPECT_FALSE(submitted.output_queue->cancelled());
  submitted.output_queue->Put(LastEvent(), SteadyNow());
  while (reader->Read(&response)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_TRUE(response.has_finished());
  EXPECT_TRUE(server_->daemon().lifecycle().live());
  EXPECT_THAT(server_->log().text(), Not(HasSubstr("stopped reading")));
}

TEST_P(ServerClockTest, TheRateIsNeitherLiftedNorLocked) {
  HttpClient client(server_->daemon().http_address());
  EXPECT_EQ(Tokenize(client), 200);
  EXPECT_EQ(Tokenize(client), 200);
  EXPECT_EQ(Tokenize(client), 429);
  const WallClockJump jump(by());
  const HttpReply limited =
      client.Post("/tokenize", R"({"prompt":"a"})", {"Authorization: Bearer a"});
  EXPECT_EQ(limited.status, 429);
  int seconds = 0;
  ASSERT_TRUE(absl::SimpleAtoi(limited.headers.at("retry-after"), &seconds));
  EXPECT_LE(seconds, 30);
}

TEST_P(ServerClockTest, TheDrainTakesAsLongAsItSaid) {
  std::atomic<bool> hurry{false};
  auto running = std::async(std::launch::async, [&] {
    grpc::ClientContext context;
    Authorize(&context);
    return Generate(server_->inference(), TextRequest("one"), &context);
  });
  const auto submitted = server_->engine().Wait();
  std::atomic<int> turns{0};
  auto drained = std::async(std::launch::async, [&] {
    server_->daemon().Drain([&](absl::Duration longest) {
      absl::SleepFor(std::min(longest, absl::Milliseconds(5)));
      ++turns;
      return hurry.load();
    });
  });
  ASSERT_TRUE(Eventually([&] { return turns > 0; }));
  const WallClockJump jump(by());
  const int before = turns;
  ASSERT_TRUE(Eventually([&] { return turns > before + 2; }));  // it has looked at the clock again
  EXPECT_TRUE(server_->daemon().lifecycle().CheckAccepting(SteadyNow()).ok());
  EXPECT_FALSE(submitted.output_queue->cancelled());
  submitted.output_queue->Put(LastEvent(), SteadyNow());
  EXPECT_TRUE(running.get().status.ok());
  hurry = true;
  drained.get();
}

TEST_P(ServerClockTest, DatesAreTheWallClocks) {
  const WallClockJump jump(by());
  HttpClient client(server_->daemon().http_address());
  client.Send(
      "POST /v1/completions HTTP/1.1\r\nAuthorization: Bearer a\r\nContent-Length: 14\r\n\r\n"
      R"({"prompt":"a"})");
  server_->engine().Wait().output_queue->Put(LastEvent(), SteadyNow());
  const auto reply = nlohmann::json::parse(client.Read().body);
  EXPECT_LT(std::abs(reply["created"].get<int64_t>() - absl::ToUnixSeconds(absl::Now())), 1800);
}

INSTANTIATE_TEST_SUITE_P(Hours, ServerClockTest, ::testing::Values(1, -1));

}  // namespace
}  // namespace tessera
