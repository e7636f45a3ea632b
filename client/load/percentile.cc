#include "client/load/percentile.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/base.h"

namespace tessera::client {

double Quantile(const std::vector<double>& sorted, double q) {
  TESSERA_CHECK(!sorted.empty() && q >= 0 && q <= 1);
  const double rank = q * static_cast<double>(sorted.size() - 1);
  const size_t below = static_cast<size_t>(rank);
  if (below + 1 >= sorted.size()) return sorted.back();
  const double share = rank - static_cast<double>(below);
  return sorted[below] + share * (sorted[below + 1] - sorted[below]);
}

Summary Summarize(std::vector<double> values) {
  Summary summary;
  summary.count = static_cast<int64_t>(values.size());
  if (values.empty()) return summary;
  std::sort(values.begin(), values.end());
  summary.mean = std::accumulate(values.begin(), values.end(), 0.0) / values.size();
  summary.min = values.front();
  summary.p50 = Quantile(values, 0.50);
  summary.p90 = Quantile(values, 0.90);
  summary.p95 = Quantile(values, 0.95);
  summary.p99 = Quantile(values, 0.99);
  summary.max = values.back();
  return summary;
}

Median MedianOf(std::vector<double> values) {
  TESSERA_CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  // The true median lies below x_k with probability P(B <= k), B ~ Binomial(n, 1/2), and above
  // x_(n-1-k) with the same. Takes the largest k with at most 2.5 %. Uses logarithms, because 2^-n
  // underflows.
  constexpr double kOneSide = 0.025;
  const double n = static_cast<double>(values.size());
  size_t k = 0;
  double chance = 0;
  for (size_t i = 0; i < values.size() / 2; ++i) {
    chance += std::exp(std::lgamma(n + 1) - std::lgamma(i + 1.0) - std::lgamma(n - i + 1.0) -
                       n * std::log(2.0));
    if (chance > kOneSide) break;
    k = i;
  }
  return {Quantile(values, 0.5), values[k], values[values.size() - 1 - k]};
}

nlohmann::ordered_json ToJson(const Summary& summary) {
  nlohmann::ordered_json json;
  json["count"] = summary.count;
  if (summary.count == 0) return json;
  json["mean"] = summary.mean;
  json["min"] = summary.min;
  json["p50"] = summary.p50;
  json["p90"] = summary.p90;
  json["p95"] = summary.p95;
  json["p99"] = summary.p99;
  json["max"] = summary.max;
  return json;
}

}  // namespace tessera::client
