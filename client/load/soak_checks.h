// The checks of a soak test. They are functions of samples, so that unit tests can show that each
// check notices its leak. Threads: functions only, safe.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/load/metrics_page.h"
#include "nlohmann/json.hpp"

namespace tessera::client {

// The gauges of a server at one moment, as Prometheus' doubles.
struct SoakSample {
  int64_t requests = 0;  // requests that had ended by then
  double kv_pages = 0, running = 0, waiting = 0, calls = 0;
  double cache_bytes = 0;  // KV pages and encoded images
  double resident_bytes = 0, open_files = 0;

  // Reads a sample from a page. INTERNAL names a metric that the page lacks.
  static absl::StatusOr<SoakSample> Of(const MetricsPage& page, int64_t requests);
};

struct SoakRecord {
  SoakSample before, after;         // taken while idle, with flushed caches
  std::vector<SoakSample> during;   // in order of `requests`
  int64_t good = 0, cancelled = 0;  // `cancelled` counts cancellations by this client
  int64_t slow = 0;                 // requests that were read slowly
  std::map<std::string, int64_t> errors;
  double seconds = 0;
};

struct SoakCheck {
  std::string name;
  double before = 0, after = 0;
  std::string want;
  bool bytes = false;  // whether `before` and `after` are bytes
  bool ok = false;
};

// Returns the growth of a gauge from the second third of the requests to their end: the rise of the
// least-squares line through the samples of that time. A line, because single samples are noisy.
// Returns nullopt with fewer than three samples.
std::optional<double> FittedGrowth(const std::vector<SoakSample>& during,
                                   double SoakSample::*gauge);

// Returns all checks in the order of the report. A soak test passes if each is ok.
std::vector<SoakCheck> CheckSoak(const SoakRecord& record, double max_resident_growth_bytes);

std::string RenderSoak(const SoakRecord& record, const std::vector<SoakCheck>& checks);
nlohmann::ordered_json SoakToJson(const SoakRecord& record, const std::vector<SoakCheck>& checks);

}  // namespace tessera::client
