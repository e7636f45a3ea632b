// Tests the checks of `tessera bench --soak` on made-up samples. Each leak fails its own check and
// no other.
#include "client/load/soak_checks.h"

#include <random>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/run_command.h"

namespace tessera::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr double kMiB = 1 << 20;
constexpr double kLimit = 4 * kMiB;

// A clean run: memory grows by 200 MiB in the first third while caches fill. Then it stays the
// same, apart from a few hundred KiB of noise.
SoakRecord Clean() {
  SoakRecord record;
  record.before.open_files = 40;
  record.before.resident_bytes = 300 * kMiB;
  record.after = record.before;
  record.good = 900;
  record.cancelled = 100;
  std::mt19937 random(7);
  for (int i = 1; i <= 100; ++i) {
    SoakSample sample = record.before;
    sample.requests = 10 * i;
    sample.kv_pages = 50;
    sample.resident_bytes += 200 * kMiB * std::min(1.0, i / 33.0) + random() % 300'000;
    record.during.push_back(sample);
  }
  return record;
}

std::vector<std::string> Failed(const SoakRecord& record) {
  std::vector<std::string> names;
  for (const SoakCheck& check : CheckSoak(record, kLimit)) {
    if (!check.ok) names.push_back(check.name);
  }
  return names;
}

TEST(ClientSoakChecks, CleanRunPasses) {
  EXPECT_THAT(Failed(Clean()), IsEmpty());
  EXPECT_EQ(CheckSoak(Clean(), kLimit).size(), 7u);
}

TEST(ClientSoakChecks, LostPage) {
  SoakRecord record = Clean();
  record.after.kv_pages += 1;
  EXPECT_THAT(Failed(record), ElementsAre("KV pages in use"));
}

TEST(ClientSoakChecks, RequestsThatStay) {
  SoakRecord record = Clean();
  record.before.running = record.after.running = 1;  // even if it was there before
  EXPECT_THAT(Failed(record), ElementsAre("requests running"));
  record = Clean();
  record.after.waiting = 1;
  EXPECT_THAT(Failed(record), ElementsAre("requests waiting"));
  record = Clean();
  record.after.calls = 1;
  EXPECT_THAT(Failed(record), ElementsAre("calls in flight"));
}

TEST(ClientSoakChecks, LeakedFile) {
  SoakRecord record = Clean();
  record.after.open_files += 1;
  EXPECT_THAT(Failed(record), ElementsAre("open files"));
  record.before.open_files = record.after.open_files = 0;  // the server cannot tell
  EXPECT_THAT(Failed(record), ElementsAre("open files"));
}

TEST(ClientSoakChecks, LeakedMemory) {
  // 16 KiB a request: 10 MiB over the later two thirds.
  SoakRecord record = Clean();
  for (SoakSample& sample : record.during) {
    sample.resident_bytes += 16.0 * 1024 * static_cast<double>(sample.requests);
  }
  EXPECT_THAT(Failed(record), ElementsAre("resident memory, thirds 2 and 3"));
  record = Clean();
  record.before.resident_bytes = 0;  // the server cannot tell
  EXPECT_THAT(Failed(record), ElementsAre("resident memory, thirds 2 and 3"));
  record = Clean();
  record.during.resize(2);  // too few for a line
  EXPECT_THAT(Failed(record), ElementsAre("resident memory, thirds 2 and 3"));
}

TEST(ClientSoakChecks, FailedRequest) {
  SoakRecord record = Clean();
  record.errors["INTERNAL"] = 1;
  EXPECT_THAT(Failed(record), ElementsAre("failed requests"));
}

TEST(ClientSoakChecks, GrowthIsTheLinesOverTheLaterThirds) {
  std::vector<SoakSample> during(9);
  for (int i = 0; i < 9; ++i) {
    during[i].requests = i + 1;
    // Grows by 5 per request from the third sample on; earlier samples are left out.
    during[i].resident_bytes = i < 2 ? -1e6 : 100 + 5 * i;
  }
  EXPECT_DOUBLE_EQ(*FittedGrowth(during, &SoakSample::resident_bytes), 5 * 6);
  EXPECT_FALSE(FittedGrowth({}, &SoakSample::resident_bytes).has_value());
}

TEST(ClientSoakChecks, ReportsNameTheFailure) {
  SoakRecord record = Clean();
  record.after.kv_pages = 3;
  const auto checks = CheckSoak(record, kLimit);
  const std::string text = RenderSoak(record, checks);
  EXPECT_THAT(text, HasSubstr("900 answered, 100 cancelled, 0 failed"));
  EXPECT_THAT(text, HasSubstr("FAILED"));
  const auto json = SoakToJson(record, checks);
  EXPECT_EQ(json["ok"], false);
  EXPECT_EQ(json["checks"][0]["after"], 3);
  EXPECT_EQ(json["checks"][0]["ok"], false);
  EXPECT_EQ(json["samples"].size(), 100u);
}

TEST(ClientSoakChecks, SampleOfAPage) {
  const std::string text =
      "# HELP tessera_kv_cache_pages Pages.\n# TYPE tessera_kv_cache_pages gauge\n"
      "tessera_kv_cache_pages{format=\"f16\"} 3\ntessera_kv_cache_pages{format=\"a } b\"} 4 1700\n"
      "tessera_kv_cache_pages_of_another_name 100\n"
      "tessera_num_requests_running 1\ntessera_num_requests_waiting 2\n"
      "tessera_rpcs_in_flight 5\ntessera_kv_cache_format_bytes{format=\"f16\"} 1e+06\n"
      "tessera_image_cache_bytes 24\nprocess_resident_memory_bytes 7e6\r\nprocess_open_fds 9\n";
  const auto page = MetricsPage::Parse(text);
  ASSERT_TRUE(page.ok()) << page.status();
  const auto sample = SoakSample::Of(*page, 11);
  ASSERT_TRUE(sample.ok()) << sample.status();
  EXPECT_EQ(sample->requests, 11);
  EXPECT_EQ(sample->kv_pages, 7);
  EXPECT_EQ(sample->running, 1);
  EXPECT_EQ(sample->waiting, 2);
  EXPECT_EQ(sample->calls, 5);
  EXPECT_EQ(sample->cache_bytes, 1e6 + 24);
  EXPECT_EQ(sample->resident_bytes, 7e6);
  EXPECT_EQ(sample->open_files, 9);
  EXPECT_EQ(page->Get("tessera_kv_cache_pages{format=\"f16\"}"), 3);
  EXPECT_EQ(page->Get("tessera_kv_cache_pages"), std::nullopt);
  EXPECT_THAT(SoakSample::Of(*MetricsPage::Parse("up 1\n"), 0).status().message(),
              HasSubstr("tessera_kv_cache_pages"));
}

TEST(ClientSoakChecks, PagesThatAreNone) {
  for (const char* text : {"up", "up 1 2 3", "up x", "{a=\"b\"}", " {", "<html> </html>"}) {
    EXPECT_FALSE(MetricsPage::Parse(text).ok()) << text;
  }
  EXPECT_EQ(FetchMetrics("nohost", absl::Seconds(1)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ClientSoakChecks, UsageErrors) {
  EXPECT_EQ(RunCommand({"bench", "--cancel_share=0.5"}).code, 2);  // needs --soak
  EXPECT_EQ(RunCommand({"bench", "--soak", "--rate=5"}).code, 2);
  EXPECT_EQ(RunCommand({"bench", "--soak", "--slo=ttft=1s"}).code, 2);
  EXPECT_EQ(RunCommand({"bench", "--soak", "--duration=1s"}).code, 2);
  EXPECT_EQ(RunCommand({"bench", "--soak", "--requests=3"}).code, 2);
}

}  // namespace
}  // namespace tessera::client
