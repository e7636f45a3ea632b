// Summarizes measurements: mean, percentiles, and a median with confidence bounds. Threads:
// functions only, safe.
#pragma once

#include <cstdint>
#include <vector>

#include "nlohmann/json.hpp"

namespace tessera::client {

// Returns the q-quantile, 0 <= q <= 1: the value at rank q*(n-1), interpolated linearly between the
// two nearest ranks (numpy's default). REQUIRES: sorted, not empty.
double Quantile(const std::vector<double>& sorted, double q);

struct Summary {
  int64_t count = 0;  // if 0, the other fields have no meaning
  double mean = 0, min = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0, max = 0;
};

Summary Summarize(std::vector<double> values);

// The median of a sample, and the bounds of a 95 % confidence interval for the true median. The
// bounds are order statistics from the binomial distribution, so they hold for any distribution of
// the values. Fewer than six values have no such bounds; then they are the smallest and largest
// value. REQUIRES: not empty.
struct Median {
  double value = 0, low = 0, high = 0;
};
Median MedianOf(std::vector<double> values);

// Returns {"count", "mean", "min", "p50", ...}, or {"count": 0} without values.
nlohmann::ordered_json ToJson(const Summary& summary);

}  // namespace tessera::client
