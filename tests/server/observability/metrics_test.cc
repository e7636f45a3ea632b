#include "server/observability/metrics.h"

#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cache/policies/registry.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

using testing::HasSubstr;

Request RequestWith(int prompt, int image_tokens) {
  Request request;
  request.prompt.ids.resize(prompt);
  request.prompt.image_tokens = image_tokens;
  request.policy = *ParsePolicy("none");
  return request;
}

TEST(MetricsTableTest, FollowsNamingRules) {
  std::set<std::string> names;
  const auto table = MetricsTable("v", "m", "d");
  ASSERT_EQ(table.size(), static_cast<size_t>(Metric::kCount));
  for (size_t i = 0; i < table.size(); ++i) {
    const MetricSpec& spec = table[i];
    EXPECT_EQ(static_cast<size_t>(spec.metric), i) << spec.name;
    EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
    EXPECT_TRUE(absl::StartsWith(spec.name, "tessera_") || absl::StartsWith(spec.name, "process_"));
    EXPECT_EQ(absl::EndsWith(spec.name, "_total"), spec.kind == MetricKind::kCounter) << spec.name;
    EXPECT_EQ(spec.buckets != Buckets::kNone, spec.kind == MetricKind::kHistogram) << spec.name;
    EXPECT_FALSE(spec.help.empty()) << spec.name;
    for (const MetricLabel& label : spec.labels) EXPECT_FALSE(label.values.empty()) << spec.name;
  }
}

TEST(MetricsTableTest, BucketsAscend) {
  for (const MetricSpec& spec : MetricsTable("v", "m", "d")) {
    const std::vector<double>& edges = BucketEdges(spec.buckets);
    for (size_t i = 1; i < edges.size(); ++i) EXPECT_LT(edges[i - 1], edges[i]) << spec.name;
  }
}

TEST(MetricsTest, EverySeriesExistsFromTheStart) {
  Metrics metrics("1.2.3", "demo", "cpu");
  const std::string text = metrics.Scrape();
  for (const MetricSpec& spec : MetricsTable("1.2.3", "demo", "cpu")) {
    EXPECT_THAT(text, HasSubstr(absl::StrCat("# HELP ", spec.name, " ")));
    if (spec.kind == MetricKind::kHistogram) {
      EXPECT_THAT(text, HasSubstr(absl::StrCat(spec.name, "_count")));
      EXPECT_THAT(text, HasSubstr(absl::StrCat(spec.name, "_bucket")));
    }
    for (const MetricLabel& label : spec.labels) {
      for (const std::string& value : label.values) {
        EXPECT_THAT(text, HasSubstr(absl::StrCat(label.name, "=\"", value, "\""))) << spec.name;
      }
    }
  }
  EXPECT_THAT(text, HasSubstr("tessera_requests_total{code=\"OK\",method=\"Generate\"} 0\n"));
  EXPECT_THAT(text,
              HasSubstr("tessera_build_info{device=\"cpu\",model=\"demo\",version=\"1.2.3\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("tessera_inter_token_latency_seconds_bucket{le=\"0.002\"} 0\n"));
}

TEST(MetricsTest, CountsWhatTheEngineReports) {
  Metrics m("v", "m", "d");
  const Request request = RequestWith(100, 64);
  m.OnPrefixLookup(100, 48);
  m.OnImageLookup(false);
  m.OnImageLookup(true);
  m.OnImageEncoded(8, 0.02);
  m.OnFirstToken(request, 0.3);
  m.OnInterToken(0.003);
  m.OnInterToken(0.004);
  m.OnPreempted(request);
  m.OnCompressed(
      {.commits = 2, .commit_seconds = 0.004, .exited_tokens = 0, .move_seconds = 0.003});
  m.OnCompressed({.commits = 0, .commit_seconds = 0, .exited_tokens = 32, .move_seconds = 0.001});
  StepReport step;
  step.prefill_tokens = 90;
  step.decode_tokens = 7;
  step.gap_seconds = 0.25;
  m.OnStep(step, {});
  Event done;
  done.done = true;
  done.reason = FinishReason::kLength;
  done.usage.output_tokens = 3;
  done.usage.total_seconds = 0.7;
  done.usage.kv_mean_bits = 2.25;
  done.usage.evicted_vision = 30.5;
  m.OnFinished(request, done);
  Event cancelled;
  cancelled.status = absl::CancelledError("gone");
  m.OnFinished(request, cancelled);

  EXPECT_EQ(m.Value(Metric::kPromptTokens), 100);
  EXPECT_EQ(m.Value(Metric::kImageTokens), 64);
  EXPECT_EQ(m.Value(Metric::kGenerationTokens), 3);
  EXPECT_EQ(m.Value(Metric::kPrefixLookupTokens), 100);
  EXPECT_EQ(m.Value(Metric::kPrefixHitTokens), 48);
  EXPECT_EQ(m.Value(Metric::kImageLookups), 2);
  EXPECT_EQ(m.Value(Metric::kImageHits), 1);
  EXPECT_EQ(m.Value(Metric::kImages), 8);
  EXPECT_EQ(m.Value(Metric::kPreemptions), 1);
  EXPECT_EQ(m.Value(Metric::kCancellations), 1);
  EXPECT_EQ(m.Value(Metric::kStepTokens, {"prefill"}), 90);
  EXPECT_EQ(m.Value(Metric::kStepTokens, {"decode"}), 7);
  EXPECT_EQ(m.Value(Metric::kDeviceGapSeconds), 0.25);
  EXPECT_EQ(m.Value(Metric::kRequestsFinished, {"length"}), 1);
  EXPECT_EQ(m.Value(Metric::kRequestsFinished, {"cancelled"}), 1);
  EXPECT_EQ(m.Value(Metric::kRequestsByPolicy, {"none"}), 2);
  EXPECT_EQ(m.Value(Metric::kKvCommits), 2);
  EXPECT_EQ(m.Value(Metric::kKvExitedTokens), 32);
  EXPECT_EQ(m.Value(Metric::kEvictedTokens, {"vision"}), 30.5);
  const std::string text = m.Scrape();
  EXPECT_THAT(text, HasSubstr("tessera_e2e_request_latency_seconds_count 1\n"));  // OK ones only
  EXPECT_THAT(text, HasSubstr("tessera_inter_token_latency_seconds_bucket{le=\"0.004\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("tessera_time_to_first_token_seconds_sum 0.3"));
  EXPECT_THAT(text, HasSubstr("tessera_kv_commit_seconds_count 1\n"));
  EXPECT_THAT(text, HasSubstr("tessera_kv_quantize_seconds_count 2\n"));
  EXPECT_THAT(text, HasSubstr("tessera_request_kv_bit_width_bucket{le=\"2.5\"} 1\n"));
}

// Every single policy and every legal composition has a series.
TEST(MetricsTest, RequestsAreCountedByTheirPolicy) {
  Metrics m("v", "m", "d");
  std::vector<std::string> texts;
  for (const PolicyInfo& a : PolicyTable()) {
    texts.push_back(a.name);
    for (const PolicyInfo& b : PolicyTable()) {
      if (a.role == PolicyRole::kSelector && b.role == PolicyRole::kStore)
        texts.push_back(a.name + "+" + b.name);
    }
  }
  for (const std::string& text : texts) {
    Request request = RequestWith(1, 0);
    const auto policy = ParsePolicy(text);
    ASSERT_TRUE(policy.ok()) << policy.status();
    request.policy = *policy;
    m.OnFinished(request, Event());
    EXPECT_EQ(m.Value(Metric::kRequestsByPolicy, {text}), 1) << text;
  }
}

TEST(MetricsTest, EveryEndHasALabel) {
  Metrics m("v", "m", "d");
  for (int code = 0; code <= 16; ++code) {
    Event last;
    last.status = absl::Status(static_cast<absl::StatusCode>(code), "x");
    m.OnFinished(RequestWith(1, 0), last);
    m.CountRpc("Generate", code);
  }
  m.CountRpc("Generate", 99);
  EXPECT_EQ(m.Value(Metric::kRequests, {"Generate", "UNKNOWN"}), 2);
  EXPECT_EQ(m.Value(Metric::kRequests, {"Generate", "UNAUTHENTICATED"}), 1);
  double finished = 0;
  for (const char* reason : {"stop", "length", "cancelled", "deadline", "unavailable", "error"}) {
    finished += m.Value(Metric::kRequestsFinished, {reason});
  }
  EXPECT_EQ(finished, 17);
}

TEST(MetricsTest, GaugesAreReadWhenScraped) {
  Metrics m("v", "m", "d");
  MetricsSnapshot snapshot;
  snapshot.load.kv_bytes_total = 1000;
  snapshot.load.kv_bytes_used = 250;
  snapshot.load.kv_bytes_reclaimable = 100;
  snapshot.load.kv_bytes_stranded = 50;
  snapshot.load.waiting = 4;
  snapshot.load.bytes_by_format[static_cast<int>(Format::kToken2)] = 640;
  snapshot.ready = true;
  m.SetSource([&] { return snapshot; });
  EXPECT_THAT(m.Scrape(), HasSubstr("tessera_kv_cache_bytes{state=\"free\"} 600\n"));
  EXPECT_EQ(m.Value(Metric::kKvUsage), 0.25);
  EXPECT_EQ(m.Value(Metric::kKvFormatBytes, {"token2"}), 640);
  EXPECT_EQ(m.Value(Metric::kRequestsWaiting), 4);
  EXPECT_EQ(m.Value(Metric::kReady), 1);
  snapshot.load.waiting = 0;
  m.Scrape();
  EXPECT_EQ(m.Value(Metric::kRequestsWaiting), 0);
  EXPECT_GT(m.Value(Metric::kResidentMemory), 1e6);
  EXPECT_GT(m.Value(Metric::kOpenFiles), 2);
}

TEST(MetricsTest, ExporterSaysWhenTheAddressIsTaken) {
  Metrics m("v", "m", "d");
  auto first = MetricsExporter::Start("127.0.0.1:0", &m);
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = MetricsExporter::Start(absl::StrCat("127.0.0.1:", (*first)->port()), &m);
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("127.0.0.1"));
}

}  // namespace
}  // namespace tessera
