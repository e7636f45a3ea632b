#include "client/load/transport_comparison.h"

#include <limits>
#include <string>
#include <vector>

#include "client/load/openai_load.h"
#include "client/load/percentile.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/fake_server.h"
#include "tests/client/run_command.h"

namespace tessera::client {
namespace {

using testing::HasSubstr;

// 0, 1, ... n - 1, backwards.
std::vector<double> Numbers(int n) {
  std::vector<double> out;
  for (int i = n; i-- > 0;) out.push_back(i);
  return out;
}

// Ranks of the textbook's table for a median's interval of 95 %, less one.
TEST(ClientMedian, BoundsAreTheSignTests) {
  struct Case {
    int n, low, high;
  };
  for (const Case& c : {Case{1, 0, 0}, Case{5, 0, 4}, Case{6, 0, 5}, Case{9, 1, 7}, Case{20, 5, 14},
                        Case{50, 17, 32}, Case{100, 39, 60}}) {
    const Median median = MedianOf(Numbers(c.n));
    EXPECT_DOUBLE_EQ(median.value, (c.n - 1) / 2.0);
    EXPECT_EQ(median.low, c.low) << c.n;
    EXPECT_EQ(median.high, c.high) << c.n;
  }
  // The probability of one outcome of 100,000 is below the smallest double.
  const Median many = MedianOf(Numbers(100'000));
  EXPECT_NEAR(many.low, 50'000 - 1.96 * 158, 2);
}

TEST(ClientOpenAiStream, UsageAndEnd) {
  const OpenAiAnswer answer = ParseOpenAiStream(
      "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"
      "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}\n\n"
      "data: [DONE]\n\n");
  EXPECT_EQ(answer.error, "");
  EXPECT_EQ(answer.prompt_tokens, 7);
  EXPECT_EQ(answer.output_tokens, 3);
}

TEST(ClientOpenAiStream, WhatIsNotWholeIsAnError) {
  const std::string piece = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7}}\n\n";
  for (const std::string& bad :
       {std::string(), piece, std::string("data: [DONE]\n\n"), piece + "data: [DONE]\n\n" + piece,
        "hello\n\n" + piece, std::string("data: {\n\n"),
        piece + "data: {\"error\":{\"message\":\"no\"}}\n\n"}) {
    EXPECT_NE(ParseOpenAiStream(bad).error, "") << bad;
  }
}

TEST(ClientTransports, ARoundIsItsMedianCall) {
  // The last answer has a single token, so it has no TPOT.
  const TransportRound round =
      SummarizeRound({{0.1, 1.1, 1.1, 5, 11}, {0.2, 2.2, 2.5, 5, 11}, {0.6, 0.6, 4.0, 5, 1}});
  EXPECT_DOUBLE_EQ(round.ttft_seconds, 0.2);
  EXPECT_DOUBLE_EQ(round.tpot_seconds, 0.15);
  EXPECT_DOUBLE_EQ(round.e2e_seconds, 1.1);
  EXPECT_DOUBLE_EQ(round.tokens_per_second, 23 / 4.0);
  EXPECT_EQ(SummarizeRound({{0.1, 0.1, 0.1, 5, 1}}).tpot_seconds, 0);
}

// The rounds differ tenfold, but their ratios are equal. A ratio of medians would hide that.
TEST(ClientTransports, RatiosAreOfRounds) {
  TransportComparison comparison;
  comparison.requests_per_round = 1;
  for (const double scale : {1.0, 10.0, 2.0, 5.0, 7.0, 3.0, 4.0}) {
    comparison.grpc.push_back({scale, scale / 100, 2 * scale, 100 / scale});
    comparison.http.push_back({1.25 * scale, scale / 100, 2.5 * scale, 80 / scale});
  }
  comparison.http.back().ttft_seconds = 100;
  const Median ttft = comparison.Ratio(&TransportRound::ttft_seconds);
  EXPECT_DOUBLE_EQ(ttft.value, 1.25);
  EXPECT_DOUBLE_EQ(ttft.low, 1.25);
  EXPECT_DOUBLE_EQ(ttft.high, 25);
  EXPECT_THAT(comparison.Render(), HasSubstr("0.8000 to 0.8000"));
  const auto json = comparison.ToJson();
  EXPECT_DOUBLE_EQ(json["tpot_seconds"]["ratio"], 1);
  EXPECT_DOUBLE_EQ(json["ttft_seconds"]["grpc"], 4);
}

TEST(ClientTransports, UsageErrors) {
  for (const char* other : {"--rate=5", "--requests=5", "--duration=1s", "--slo=ttft=1s",
                            "--timeout=1s", "--bypass_prefix", "--tls_ca=x", "--rounds=5"}) {
    const Outcome outcome = RunCommand({"bench", "--compare_http=127.0.0.1:1", other});
    EXPECT_EQ(outcome.code, 2) << other;
  }
  EXPECT_EQ(RunCommand({"bench", "--rounds=10"}).code, 2);
}

TEST(ClientTransports, ADoorThatIsShutIsNamed) {
  FakeServer server([](const v1::GenerateRequest&, int) { return Answer("ab"); });
  const Outcome outcome = RunCommand({"bench", "--address", server.address(), "--warmup=0",
                                      "--compare_http=127.0.0.1:1", "--concurrency=1"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("HTTP: 127.0.0.1:1: Connection refused"));
  EXPECT_EQ(outcome.out, "");
}

}  // namespace
}  // namespace tessera::client
