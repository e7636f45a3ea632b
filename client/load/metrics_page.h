// Fetches and parses the /metrics page of a server over plain HTTP, as a Prometheus server does.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace tessera::client {

// The values of a page. Threads: const functions are safe.
class MetricsPage {
 public:
  // Parses Prometheus' text format 0.0.4. INVALID_ARGUMENT quotes the first line that is not in it.
  static absl::StatusOr<MetricsPage> Parse(absl::string_view text);

  // Returns the value of a series, named as on the page: `up` or `kv_bytes{state="used"}`.
  std::optional<double> Get(absl::string_view series) const;
  // Returns the sum over all series of a metric.
  std::optional<double> Sum(absl::string_view name) const;

 private:
  std::map<std::string, double, std::less<>> values_;
};

// Gets http://`address`/metrics, where `address` is HOST:PORT or [IPV6]:PORT. `timeout` limits each
// wait for the peer. Errors: INVALID_ARGUMENT for the address, UNAVAILABLE if the server cannot be
// reached, INTERNAL if the answer is not a metrics page.
absl::StatusOr<MetricsPage> FetchMetrics(absl::string_view address, absl::Duration timeout);

}  // namespace tessera::client
