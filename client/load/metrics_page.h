// A server's /metrics page, fetched over plain HTTP and parsed: what a Prometheus server would see.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace tessera::client {

// A value. Threads: reading is safe.
class MetricsPage {
 public:
  // Prometheus' text format 0.0.4. INVALID_ARGUMENT with the line that is none of it.
  static absl::StatusOr<MetricsPage> Parse(absl::string_view text);

  // Of one series, named as the page does: `up` or `kv_bytes{state="used"}`.
  std::optional<double> Get(absl::string_view series) const;
  // Over all series of a metric, whatever their labels.
  std::optional<double> Sum(absl::string_view name) const;

 private:
  std::map<std::string, double, std::less<>> values_;
};

// GET http://`address`/metrics; `address` is HOST:PORT or [IPV6]:PORT, `timeout` is of each wait
// for the peer. INVALID_ARGUMENT (the address), UNAVAILABLE (no such server), INTERNAL (an answer
// that is no metrics page).
absl::StatusOr<MetricsPage> FetchMetrics(absl::string_view address, absl::Duration timeout);

}  // namespace tessera::client
