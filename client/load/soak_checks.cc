#include "client/load/soak_checks.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/base.h"
#include "base/byte_size.h"
#include "client/cli/format.h"

namespace tessera::client {
namespace {

std::string Show(const SoakCheck& check, double value) {
  if (!check.bytes) return absl::StrFormat("%.15g", value);
  const std::string text = FormatBytes(static_cast<int64_t>(std::abs(value)));
  return value < 0 ? absl::StrCat("-", text) : text;
}

std::vector<SoakSample> LaterThirds(const std::vector<SoakSample>& during) {
  std::vector<SoakSample> later;
  const int64_t total = during.empty() ? 0 : during.back().requests;
  for (const SoakSample& sample : during) {
    if (3 * sample.requests >= total) later.push_back(sample);
  }
  return later;
}

int64_t CountErrors(const SoakRecord& record) {
  int64_t count = 0;
  for (const auto& [code, times] : record.errors) count += times;
  return count;
}

}  // namespace

absl::StatusOr<SoakSample> SoakSample::Of(const MetricsPage& page, int64_t requests) {
  SoakSample sample;
  sample.requests = requests;
  const std::pair<const char*, double*> sums[] = {
      {"tessera_kv_cache_pages", &sample.kv_pages},
      {"tessera_num_requests_running", &sample.running},
      {"tessera_num_requests_waiting", &sample.waiting},
      {"tessera_rpcs_in_flight", &sample.calls},
      {"tessera_kv_cache_format_bytes", &sample.cache_bytes},
      {"process_resident_memory_bytes", &sample.resident_bytes},
      {"process_open_fds", &sample.open_files},
  };
  for (const auto& [name, out] : sums) {
    const std::optional<double> value = page.Sum(name);
    if (!value) return absl::InternalError(absl::StrCat("the server exports no ", name));
    *out = *value;
  }
  sample.cache_bytes += page.Sum("tessera_image_cache_bytes").value_or(0);
  return sample;
}

std::optional<double> FittedGrowth(const std::vector<SoakSample>& during,
                                   double SoakSample::*gauge) {
  const std::vector<SoakSample> later = LaterThirds(during);
  if (later.size() < 3) return std::nullopt;
  double mean_x = 0, mean_y = 0;
  for (const SoakSample& sample : later) {
    mean_x += static_cast<double>(sample.requests) / static_cast<double>(later.size());
    mean_y += sample.*gauge / static_cast<double>(later.size());
  }
  double xx = 0, xy = 0;
  for (const SoakSample& sample : later) {
    const double x = static_cast<double>(sample.requests) - mean_x;
    xx += x * x;
    xy += x * (sample.*gauge - mean_y);
  }
  if (xx == 0) return std::nullopt;
  return xy / xx * static_cast<double>(later.back().requests - later.front().requests);
}

std::vector<SoakCheck> CheckSoak(const SoakRecord& record, double max_resident_growth_bytes) {
  const SoakSample& before = record.before;
  const SoakSample& after = record.after;
  std::vector<SoakCheck> checks;
  checks.push_back({"KV pages in use", before.kv_pages, after.kv_pages, "as before",
                    /*bytes=*/false, after.kv_pages == before.kv_pages});
  const std::pair<const char*, double SoakSample::*> idle[] = {
      {"requests running", &SoakSample::running},
      {"requests waiting", &SoakSample::waiting},
      {"calls in flight", &SoakSample::calls}};
  for (const auto& [name, gauge] : idle) {
    checks.push_back({name, before.*gauge, after.*gauge, "0", /*bytes=*/false, after.*gauge == 0});
  }
  // A server that cannot read its own /proc reports 0, which proves nothing.
  checks.push_back({"open files", before.open_files, after.open_files, "no more than before",
                    /*bytes=*/false,
                    before.open_files > 0 && after.open_files <= before.open_files});
  const auto growth = FittedGrowth(record.during, &SoakSample::resident_bytes);
  const std::vector<SoakSample> later = LaterThirds(record.during);
  SoakCheck resident{"resident memory, thirds 2 and 3", 0, 0, "", /*bytes=*/true, false};
  if (growth) {
    resident.before = later.front().resident_bytes;
    resident.after = later.back().resident_bytes;
    resident.want = absl::StrCat("slope of at most ",
                                 FormatBytes(static_cast<int64_t>(max_resident_growth_bytes)),
                                 ", is ", Show(resident, *growth));
    resident.ok = before.resident_bytes > 0 && *growth <= max_resident_growth_bytes;
  } else {
    resident.want = "at least three samples";
  }
  checks.push_back(std::move(resident));
  const double errors = static_cast<double>(CountErrors(record));
  checks.push_back({"failed requests", 0, errors, "0", /*bytes=*/false, errors == 0});
  return checks;
}

std::string RenderSoak(const SoakRecord& record, const std::vector<SoakCheck>& checks) {
  std::string out = absl::StrFormat(
      "soak: %s answered, %s cancelled, %s failed, %s read slowly, in %s\n",
      FormatCount(record.good), FormatCount(record.cancelled), FormatCount(CountErrors(record)),
      FormatCount(record.slow), FormatSeconds(record.seconds));
  for (const auto& [code, count] : record.errors) {
    absl::StrAppend(&out, "  ", code, ": ", count, "\n");
  }
  if (const auto caches = FittedGrowth(record.during, &SoakSample::cache_bytes)) {
    const SoakCheck unit{"", 0, 0, "", /*bytes=*/true, true};
    absl::StrAppend(&out, "caches grew by ", Show(unit, *caches),
                    " in thirds 2 and 3, which is part of the server's memory growth\n");
  }
  Table table({"check", "before", "after", "want", ""});
  for (const SoakCheck& check : checks) {
    table.AddRow({check.name, Show(check, check.before), Show(check, check.after), check.want,
                  check.ok ? "ok" : "FAILED"});
  }
  absl::StrAppend(&out, "\n", table.Render());
  return out;
}

nlohmann::ordered_json SoakToJson(const SoakRecord& record, const std::vector<SoakCheck>& checks) {
  nlohmann::ordered_json json;
  json["answered"] = record.good;
  json["cancelled"] = record.cancelled;
  json["failed"] = CountErrors(record);
  json["errors"] = record.errors;
  json["read_slowly"] = record.slow;
  json["seconds"] = record.seconds;
  bool ok = true;
  for (const SoakCheck& check : checks) {
    json["checks"].push_back({{"name", check.name},
                              {"before", check.before},
                              {"after", check.after},
                              {"want", check.want},
                              {"ok", check.ok}});
    ok = ok && check.ok;
  }
  json["ok"] = ok;
  for (const SoakSample& sample : record.during) {
    json["samples"].push_back({{"requests", sample.requests},
                               {"resident_bytes", sample.resident_bytes},
                               {"open_files", sample.open_files},
                               {"kv_pages", sample.kv_pages},
                               {"cache_bytes", sample.cache_bytes}});
  }
  return json;
}

}  // namespace tessera::client
