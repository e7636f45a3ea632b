// The wall clock jumps by an hour, either way, while the engine works.
#include <gtest/gtest.h>

#include <chrono>
#include <future>

#include "absl/time/clock.h"
#include "engine/runtime/engine.h"
#include "tests/engine/engine_testing.h"
#include "tests/engine/wall_clock.h"
#include "tests/engine/wrapped_model.h"
#include "tests/support/paths.h"

namespace tessera {
namespace {

using testing::Answer;
using testing::MakeRequest;
using testing::Reader;
using testing::WallClockJump;

TEST(WallClockJumpTest, IsSeenByWhoReadsTheWallClockOnly) {
  using std::chrono::hours;
  using std::chrono::system_clock;
  const absl::Time steady = SteadyNow();
  const auto wall = system_clock::now();
  {
    const WallClockJump jump(absl::Hours(1));
    EXPECT_GE(system_clock::now() - wall, hours(1));
    EXPECT_LT(SteadyNow() - steady, absl::Minutes(30));
    const absl::Duration left = ToSteady(system_clock::now() + hours(2)) - SteadyNow();
    EXPECT_GT(left, absl::Minutes(90));
    EXPECT_LT(left, absl::Minutes(150));
    EXPECT_GE(ToDate(SteadyNow()) - wall, hours(1));
    EXPECT_LT(ToDate(SteadyNow()) - wall, hours(2));
  }
  EXPECT_LT(system_clock::now() - wall, hours(1));
}

// A model whose requests still run when the clock jumps, however fast the machine is.
class Slow final : public testing::WrappedModel {
 public:
  using WrappedModel::WrappedModel;
  void Forward(const Batch& batch, uint8_t* arena) override {
    absl::SleepFor(absl::Microseconds(200));
    WrappedModel::Forward(batch, arena);
  }
};

// The parameter: by how many hours.
class EngineClockTest : public ::testing::TestWithParam<int> {
 protected:
  EngineClockTest() {
    auto c = testing::LoadCheckpoint(testing::SourcePath("tests/golden/tiny_gqa"));
    EngineOptions options;
    options.kv_cache_bytes = 64 << 20;
    engine_ = std::make_unique<Engine>(std::make_unique<Slow>(std::move(c.model)), c.tokenizer,
                                       options, nullptr);
  }
  absl::Duration by() const { return absl::Hours(GetParam()); }
  static Request Endless(int max_tokens) {
    Prompt prompt;
    prompt.ids.assign(10, 260);
    Request r = MakeRequest("a", std::move(prompt), max_tokens);
    r.stop.ignore_eos = true;
    return r;
  }
  std::unique_ptr<Engine> engine_;
};

TEST_P(EngineClockTest, ARunningRequestDoesNotNotice) {
  Request r = Endless(400);
  r.deadline = SteadyNow() + absl::Minutes(30);
  Reader reader;
  Answer answer;
  ASSERT_TRUE(engine_->Submit(std::move(r), reader.output_queue(), nullptr).ok());
  ASSERT_TRUE(reader.ReadOne(&answer));
  const WallClockJump jump(by());
  EXPECT_LT(engine_->HeartbeatAge(), absl::Minutes(30));
  EXPECT_GE(engine_->HeartbeatAge(), absl::ZeroDuration());
  answer = reader.ReadAll();
  EXPECT_TRUE(answer.last.status.ok()) << answer.last.status;
  const Usage& usage = answer.last.usage;
  EXPECT_EQ(usage.output_tokens, 400);
  for (const double seconds : {usage.queue_seconds, usage.prefill_seconds, usage.decode_seconds,
                               usage.first_token_seconds, usage.total_seconds}) {
    EXPECT_GE(seconds, 0);
    EXPECT_LT(seconds, 1800);
  }
}

TEST_P(EngineClockTest, AReaderThatTakesNothingYetIsKept) {
  Reader reader;
  ASSERT_TRUE(engine_->Submit(Endless(480), reader.output_queue(), nullptr).ok());
  for (int i = 0; i < 1000 && engine_->Load().running == 0; ++i)
    absl::SleepFor(absl::Milliseconds(1));
  const WallClockJump jump(by());
  const Answer answer = reader.ReadAll();  // --stall_timeout is 30 s
  EXPECT_TRUE(answer.last.status.ok()) << answer.last.status;
  EXPECT_EQ(answer.ids.size(), 480u);
}

TEST_P(EngineClockTest, ADeadlineComesAllTheSame) {
  Request r = Endless(480);
  r.deadline = SteadyNow() + absl::Milliseconds(30);
  Reader reader;
  ASSERT_TRUE(engine_->Submit(std::move(r), reader.output_queue(), nullptr).ok());
  const WallClockJump jump(by());
  EXPECT_EQ(reader.ReadAll().last.status.code(), absl::StatusCode::kDeadlineExceeded);
}

INSTANTIATE_TEST_SUITE_P(Hours, EngineClockTest, ::testing::Values(1, -1));

}  // namespace
}  // namespace tessera
