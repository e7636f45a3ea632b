#include <png.h>

#include <algorithm>
#include <set>

#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "client/load/bench_config.h"
#include "client/load/bench_report.h"
#include "client/load/load_run.h"
#include "client/load/synthetic.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/fake_server.h"
#include "tests/client/run_command.h"

namespace tessera::client {
namespace {

using std::chrono::milliseconds;
using testing::DoubleNear;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr Clock::time_point kStart{};

// Makes a good call: due at 0, sent at 5 ms, with `messages` (ms, tokens), and done at `done` ms.
Measured Good(std::vector<std::pair<int, int>> messages, int done) {
  Measured measured;
  measured.due = kStart;
  measured.call.sent = kStart + milliseconds(5);
  measured.call.done = kStart + milliseconds(done);
  int tokens = 0;
  for (const auto& [at, count] : messages) {
    measured.call.marks.push_back({kStart + milliseconds(at), count});
    tokens += count;
  }
  v1::Usage& usage = *measured.call.finished.mutable_usage();
  usage.set_prompt_tokens(100);
  usage.set_output_tokens(tokens);
  usage.set_kv_bytes(1000);
  usage.set_kv_mean_bits(16);
  return measured;
}

TEST(ClientBenchReport, LatencyOfOneTokenMessages) {
  const Latency latency = MeasureLatency(Good({{100, 1}, {110, 1}, {140, 1}}, 150));
  EXPECT_DOUBLE_EQ(latency.ttft_seconds, 0.100);  // from the due time, not the sending
  EXPECT_DOUBLE_EQ(latency.e2e_seconds, 0.150);
  EXPECT_THAT(latency.itl_seconds, ElementsAre(DoubleNear(0.01, 1e-12), DoubleNear(0.03, 1e-12)));
  EXPECT_NEAR(*latency.tpot_seconds, 0.02, 1e-12);
}

TEST(ClientBenchReport, MessagesOfSeveralTokensShareTheirGap) {
  // 2 tokens, then 4 after 40 ms, then text without a token, then 1 after 10 ms more.
  const Latency latency = MeasureLatency(Good({{100, 2}, {140, 4}, {145, 0}, {150, 1}}, 160));
  EXPECT_THAT(latency.itl_seconds,
              ElementsAre(DoubleNear(0.01, 1e-12), DoubleNear(0.01, 1e-12), DoubleNear(0.01, 1e-12),
                          DoubleNear(0.01, 1e-12), DoubleNear(0.01, 1e-12)));
  EXPECT_NEAR(*latency.tpot_seconds, 0.05 / 5, 1e-12);
}

TEST(ClientBenchReport, OneMessageHasNoTpot) {
  const Latency latency = MeasureLatency(Good({{100, 3}}, 120));
  EXPECT_DOUBLE_EQ(latency.ttft_seconds, 0.1);
  EXPECT_FALSE(latency.tpot_seconds.has_value());
  EXPECT_TRUE(latency.itl_seconds.empty());
}

TEST(ClientBenchReport, ThroughputGoodputAndErrors) {
  std::vector<Measured> results = {Good({{100, 1}, {110, 1}}, 200), Good({{300, 1}, {310, 1}}, 400),
                                   Good({{100, 1}, {190, 1}}, 500)};
  Measured failed = Good({}, 1000);
  failed.call.error = {grpc::StatusCode::UNAVAILABLE, "busy"};
  results.push_back(failed);
  Slo slo;
  ASSERT_TRUE(ParseSlo("ttft=250ms,tpot=50ms", &slo).ok());
  const BenchReport report = MakeReport(results, slo);
  EXPECT_EQ(report.good, 3);
  EXPECT_EQ(report.failed, 1);
  EXPECT_EQ(report.errors.at("UNAVAILABLE"), 1);
  EXPECT_DOUBLE_EQ(report.window_seconds, 1.0);  // includes the end of the failed request
  EXPECT_DOUBLE_EQ(report.requests_per_second, 3);
  EXPECT_DOUBLE_EQ(report.output_tokens_per_second, 6);
  EXPECT_DOUBLE_EQ(report.prompt_tokens_per_second, 300);
  EXPECT_EQ(report.within_slo, 1);
  EXPECT_DOUBLE_EQ(report.goodput, 1);
  EXPECT_EQ(report.ttft.count, 3);
  EXPECT_DOUBLE_EQ(report.ttft.p50, 0.1);
  EXPECT_DOUBLE_EQ(report.send_lag.mean, 0.005);
  EXPECT_DOUBLE_EQ(report.kv_bits_mean, 16);
  BenchConfig config;
  config.slo = slo;
  const std::string text = report.Render(config);
  for (const char* part : {"closed loop, 8 in flight", "3 good, 1 failed", "UNAVAILABLE: 1",
                           "goodput: 1.00 requests/s (1 of 4 within", kDefinitions}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  EXPECT_EQ(report.ToJson(config)["goodput_requests_per_second"], 1.0);
}

TEST(ClientBenchReport, NothingGood) {
  const BenchReport report = MakeReport({}, {});
  EXPECT_EQ(report.good, 0);
  EXPECT_THAT(report.Render(BenchConfig()), HasSubstr("0 good, 0 failed"));
}

TEST(ClientBenchConfig, Slo) {
  Slo slo;
  ASSERT_TRUE(ParseSlo("e2e=2s,ttft=200ms", &slo).ok());
  EXPECT_EQ(slo.e2e_seconds, 2.0);
  EXPECT_EQ(slo.ttft_seconds, 0.2);
  EXPECT_FALSE(slo.tpot_seconds.has_value());
  for (const char* bad : {"", "ttft", "ttft=", "ttft=5", "ttft=0s", "itl=5ms", "ttft=1s,ttft=1s"}) {
    Slo unused;
    EXPECT_FALSE(ParseSlo(bad, &unused).ok()) << bad;
  }
}

TEST(ClientBenchConfig, WorkloadIsTheSameForASeedAndNewForEachRequest) {
  BenchConfig config;
  config.images = 2;
  config.image_side = 20;
  config.seed = 5;
  const Workload workload(config, 12), again(config, 12);
  EXPECT_EQ(workload.Make(3).SerializeAsString(), again.Make(3).SerializeAsString());
  std::set<std::string> images, texts;
  for (int i = 0; i < 4; ++i) {
    const v1::GenerateRequest request = workload.Make(i);
    ASSERT_EQ(request.content_size(), 3);
    images.insert(request.content(0).image().data());
    images.insert(request.content(1).image().data());
    texts.insert(request.content(2).text());
    EXPECT_TRUE(request.stopping().ignore_eos());
    EXPECT_EQ(request.stopping().max_tokens(), 64);
  }
  EXPECT_EQ(images.size(), 8u);
  EXPECT_EQ(texts.size(), 4u);
  config.shared_images = true;
  const Workload shared(config, 12);
  EXPECT_EQ(shared.Make(0).content(1).image().data(), shared.Make(1).content(1).image().data());
  EXPECT_NE(shared.Make(0).content(0).image().data(), shared.Make(0).content(1).image().data());
}

TEST(ClientBenchSynthetic, PicturesDecodeToTheirSize) {
  for (int side : {1, 2, 112, 337}) {
    const std::string png = SyntheticPng(side, 9);
    png_image image = {};
    image.version = PNG_IMAGE_VERSION;
    ASSERT_TRUE(png_image_begin_read_from_memory(&image, png.data(), png.size()));
    EXPECT_EQ(image.width, static_cast<png_uint_32>(side));
    EXPECT_EQ(image.height, static_cast<png_uint_32>(side));
    image.format = PNG_FORMAT_RGB;
    std::string pixels(PNG_IMAGE_SIZE(image), '\0');
    EXPECT_TRUE(png_image_finish_read(&image, nullptr, pixels.data(), 0, nullptr));
  }
  const std::vector<std::string> words = absl::StrSplit(SyntheticText(50, 1), ' ');
  EXPECT_EQ(words.size(), 50u);
}

v1::GenerateRequest Plain(int64_t) { return {}; }

TEST(ClientLoad, ClosedLoopKeepsItsConcurrency) {
  FakeServer server([](const v1::GenerateRequest&, int) {
    Reply reply = Answer("ab");
    reply.gather = 3;
    return reply;
  });
  LoadPlan plan;
  plan.requests = 30;
  plan.concurrency = 3;
  Interrupt interrupt;
  int64_t last = 0;
  const auto results = RunLoad(server.channel(), plan, Plain, &interrupt,
                               [&](int64_t done, int64_t) { last = done; });
  EXPECT_EQ(results.size(), 30u);
  EXPECT_EQ(last, 30);
  EXPECT_EQ(server.most_in_flight(), 3);
}

// The server takes one request at a time and 20 ms for each, and requests come every 5 ms. So the
// true waits grow. A client that waited before it sent the next one would see 20 ms each.
TEST(ClientLoad, OpenLoopDoesNotWaitForTheServer) {
  Mutex one;
  FakeServer server([&](const v1::GenerateRequest&, int) {
    MutexLock lock(one);
    absl::SleepFor(absl::Milliseconds(20));
    return Answer("a");
  });
  LoadPlan plan;
  plan.requests = 20;
  plan.rate = 200;
  plan.seed = 1;
  Interrupt interrupt;
  const auto results = RunLoad(server.channel(), plan, Plain, &interrupt, [](int64_t, int64_t) {});
  ASSERT_EQ(results.size(), 20u);
  Clock::time_point first = results[0].due, last = results[0].due, end = results[0].call.done;
  for (const Measured& measured : results) {
    EXPECT_TRUE(measured.call.ok());
    EXPECT_LE(measured.due, measured.call.sent);  // never early
    first = std::min(first, measured.due);
    last = std::max(last, measured.due);
    end = std::max(end, measured.call.done);
  }
  // Service takes 20 x 20 ms, so the last request ends 400 ms after the first came.
  EXPECT_GE(end - first, milliseconds(400));
  const BenchReport report = MakeReport(results, {});
  const double wait_of_last = std::chrono::duration<double>(end - last).count();
  EXPECT_GE(report.e2e.max, wait_of_last);
  // The schedule depends only on the seed, so this sum is a constant.
  EXPECT_LT(last - first, milliseconds(300));
  EXPECT_GE(report.e2e.max, 0.1);
}

TEST(ClientLoad, DurationEndsTheSendingAndInterruptEndsAll) {
  FakeServer server([](const v1::GenerateRequest&, int) {
    Reply reply = Answer("a");
    reply.first_delay = absl::Milliseconds(2);
    return reply;
  });
  LoadPlan plan;
  plan.duration = absl::Milliseconds(60);
  plan.concurrency = 2;
  Interrupt interrupt;
  const auto results = RunLoad(server.channel(), plan, Plain, &interrupt, [](int64_t, int64_t) {});
  EXPECT_GE(results.size(), 1u);
  EXPECT_LE(results.size(), 62u);  // two at a time, at least 2 ms each, from 0 to 60 ms
  plan.duration = absl::Hours(1);
  const auto stopped =
      RunLoad(server.channel(), plan, Plain, &interrupt, [&](int64_t done, int64_t) {
        if (done == 5) interrupt.Trigger();
      });
  EXPECT_GE(stopped.size(), 5u);
  EXPECT_LE(stopped.size(), 7u);
}

TEST(ClientBench, CommandPrintsJson) {
  FakeServer server([](const v1::GenerateRequest& request, int) {
    return Answer(std::string(request.stopping().max_tokens(), 'x'));
  });
  const Outcome outcome = RunCommand(
      {"bench", "--address", server.address(), "--requests=6", "--concurrency=2", "--images=1",
       "--image_side=16", "--prompt_tokens=45", "--output_tokens=4", "--warmup=1", "--json"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const auto json = nlohmann::json::parse(outcome.out, nullptr, false);
  ASSERT_FALSE(json.is_discarded()) << outcome.out;
  EXPECT_EQ(json["good"], 6);
  EXPECT_EQ(json["output_tokens"], 24);
  EXPECT_EQ(json["itl_seconds"]["count"], 18);
  EXPECT_EQ(server.requests().size(), 7u);
  // The fake server counts 5 tokens and 2 for each word, so 45 tokens are 20 words.
  const std::string text = server.requests()[3].content(1).text();
  EXPECT_EQ(std::count(text.begin(), text.end(), ' '), 19);
}

TEST(ClientBench, RefusalsAreResults) {
  FakeServer server([](const v1::GenerateRequest&, int call) {
    Reply reply = Answer("x");
    if (call % 2 == 1) reply.status = RetryAfter(absl::Hours(1));
    return reply;
  });
  const Outcome outcome = RunCommand({"bench", "--address", server.address(), "--requests=6",
                                      "--rate=500", "--prompt=hi", "--warmup=0"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.out, HasSubstr("3 good, 3 failed"));
  EXPECT_THAT(outcome.out, HasSubstr("open loop, 500 requests/s"));
  EXPECT_THAT(outcome.err, HasSubstr("UNAVAILABLE: busy"));
}

TEST(ClientBench, UsageErrors) {
  EXPECT_EQ(RunCommand({"bench", "--rate=5", "--concurrency=2"}).code, 2);
  EXPECT_EQ(RunCommand({"bench", "--prompt=x", "--prompt_tokens=2"}).code, 2);
  EXPECT_EQ(RunCommand({"bench", "--shared_images"}).code, 2);
  EXPECT_EQ(RunCommand({"bench", "--image_side=5"}).code, 2);
  EXPECT_EQ(RunCommand({"bench", "--slo=x"}).code, 2);
}

}  // namespace
}  // namespace tessera::client
