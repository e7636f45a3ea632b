// Summary of a list of measurements: mean and percentiles, defined exactly.
#pragma once

#include <cstdint>
#include <vector>

#include "nlohmann/json.hpp"

namespace tessera::client {

// The q-th quantile, 0 <= q <= 1, by linear interpolation between the two nearest ranks: the value
// at rank q*(n-1) of the sorted list (numpy's default). REQUIRES: sorted, not empty.
double Quantile(const std::vector<double>& sorted, double q);

struct Summary {
  int64_t count = 0;  // 0: the other fields mean nothing
  double mean = 0, min = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0, max = 0;
};

Summary Summarize(std::vector<double> values);

// The median, and the bounds between which the median of what was sampled lies with 95 %: order
// statistics by the binomial distribution, whatever the distribution of the values. With fewer than
// six values no bounds hold that; they are the smallest and largest then. REQUIRES: not empty.
struct Median {
  double value = 0, low = 0, high = 0;
};
Median MedianOf(std::vector<double> values);

// {"count", "mean", "min", "p50", ...}; only {"count": 0} without values.
nlohmann::ordered_json ToJson(const Summary& summary);

}  // namespace tessera::client
