#include "cache/policy/budget.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/base.h"

namespace tessera {

std::vector<int64_t> ShareOut(int64_t total, absl::Span<const double> weights, int64_t min,
                              int64_t max) {
  const auto n = static_cast<int64_t>(weights.size());
  TESSERA_CHECK(n > 0 && 0 <= min && n * min <= total && total <= n * max);
  std::vector<double> w;
  for (const double x : weights) w.push_back(std::isfinite(x) ? x : 0);
  const double largest = *std::max_element(w.begin(), w.end());
  TESSERA_CHECK(largest >= 0);
  for (double& x : w) x = largest > 0 ? x / largest : 1;

  // The shares are clip(scale * w). Their sum grows with the scale, so bisection finds the scale.
  const auto share = [&](double scale, int64_t i) {
    return std::clamp(scale * w[i], static_cast<double>(min), static_cast<double>(max));
  };
  const auto sum = [&](double scale) {
    double s = 0;
    for (int64_t i = 0; i < n; ++i) s += share(scale, i);
    return s;
  };
  double low = 0, high = static_cast<double>(max) + 1;
  while (sum(high) < static_cast<double>(total) && high < 1e300) high *= 2;
  for (int i = 0; i < 200; ++i) {
    const double middle = (low + high) / 2;
    (sum(middle) < static_cast<double>(total) ? low : high) = middle;
  }
  std::vector<int64_t> out(n), order(n);
  std::vector<double> remainder(n);
  int64_t left = total;
  for (int64_t i = 0; i < n; ++i) {
    out[i] = static_cast<int64_t>(std::floor(share(low, i)));
    remainder[i] = share(low, i) - static_cast<double>(out[i]);
    left -= out[i];
  }
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return remainder[a] > remainder[b]; });
  // One round is enough, except where weights of zero take no part in the division.
  while (left > 0) {
    for (const int64_t i : order) {
      if (left == 0 || out[i] == max) continue;
      ++out[i];
      --left;
    }
  }
  TESSERA_CHECK(left == 0);
  return out;
}

}  // namespace tessera
