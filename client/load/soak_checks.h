// What a soak run says of a server: functions of the samples that were taken of it, so that they
// can be shown to notice a leak without one.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/load/metrics_page.h"
#include "nlohmann/json.hpp"

namespace tessera::client {

// A server at one moment. Gauges, in Prometheus' doubles.
struct SoakSample {
  int64_t requests = 0;  // that had ended by then
  double kv_pages = 0, running = 0, waiting = 0, calls = 0;
  double cache_bytes = 0;  // KV pages of any kind and encoded images
  double resident_bytes = 0, open_files = 0;

  // INTERNAL naming a metric that the page lacks.
  static absl::StatusOr<SoakSample> Of(const MetricsPage& page, int64_t requests);
};

struct SoakRecord {
  SoakSample before, after;         // idle, caches flushed
  std::vector<SoakSample> during;   // by requests
  int64_t good = 0, cancelled = 0;  // cancelled: ended so by this client
  int64_t slow = 0;                 // read slowly, whatever their end
  std::map<std::string, int64_t> errors;
  double seconds = 0;
};

struct SoakCheck {
  std::string name;
  double before = 0, after = 0;
  std::string want;
  bool bytes = false;  // the unit
  bool ok = false;
};

// Bytes that a gauge grew from the second third of the requests to their end: the least-squares
// line through the samples of that time, over its length. A line, because one sample more or less
// is noise. nullopt with fewer than three samples there.
std::optional<double> FittedGrowth(const std::vector<SoakSample>& during,
                                   double SoakSample::*gauge);

// All of them, in the order of the report; a soak passes if each is ok.
std::vector<SoakCheck> CheckSoak(const SoakRecord& record, double max_resident_growth_bytes);

std::string RenderSoak(const SoakRecord& record, const std::vector<SoakCheck>& checks);
nlohmann::ordered_json SoakToJson(const SoakRecord& record, const std::vector<SoakCheck>& checks);

}  // namespace tessera::client
