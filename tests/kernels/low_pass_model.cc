#include "tests/kernels/low_pass_model.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/half.h"
#include "tests/kernels/test_util.h"

namespace tessera::testing {
namespace {

// Adds one layer: sums [tokens, 4] of `terms` squares each, errors [tokens, 2] of the distances.
void Append(const std::vector<double>& sums, const std::vector<double>& errors, int64_t terms,
            Expected* out) {
  for (size_t t = 0; t < sums.size() / 4; ++t) {
    for (size_t i = 0; i < 4; ++i) {
      out->values.push_back(static_cast<float>(sums[t * 4 + i]));
      const double error = i < 2 ? errors[t * 2 + i] : 0;
      out->bounds.push_back(error + Gamma(terms + 8) * (sums[t * 4 + i] + error));
    }
  }
}

// A number that the device computes with a relative error of at most `doubt` and then rounds to
// half.
struct Rounded {
  explicit Rounded(double x, double doubt) {
    const auto half = [](double v) {
      return static_cast<double>(HalfToFloat(FloatToHalf(static_cast<float>(v))));
    };
    const double low = half(x - doubt), high = half(x + doubt);
    value = low;
    error = high - low;
  }
  double value, error;
};

constexpr double kHalf = 0x1p-11, kSmallest = 0x1p-25;  // roundings to half: relative, absolute
constexpr double kDoubt = 0x1p-18;  // relative error of a window's weight in float
constexpr int kReach = 5, kEdge = 8;

// The grid's weights and filter, as rounded.
struct GridModel {
  int64_t n, kept, points, half, rows;
  double beta;
  // The weight of a token on a point: spread [half, n], read [n, rows].
  std::vector<std::vector<std::pair<int64_t, Rounded>>> spread, read;
  std::vector<double> weights;     // [half] sums of `spread`
  std::vector<Rounded> filter[2];  // D for even and odd coefficients, [rows, half]

  explicit GridModel(const LowPassCase& c)
      : n(c.tokens),
        kept(c.kept),
        points(CeilDiv<int64_t>(3 * c.kept, 32) * 16),
        half(points / 2),
        rows(half + kEdge),
        spread(half),
        read(n),
        weights(half) {
    const double width =
        kReach * (1 - 0.5 * static_cast<double>(kept) / static_cast<double>(points));
    beta = M_PI * std::sqrt(width * width - 0.8);
    MakeWeights();
    for (const int parity : {0, 1}) MakeFilter(parity);
  }

 private:
  double Window(double distance) const {
    const double x = 2 * distance / kReach;
    return std::fabs(x) < 1 ? std::cyl_bessel_i(0, beta * std::sqrt(1 - x * x)) * beta /
                                  (kReach * std::sinh(beta))
                            : 0;
  }
  double Gain(int64_t k) const {
    const double x = M_PI * kReach * static_cast<double>(k) / static_cast<double>(2 * points);
    const double z = std::sqrt(beta * beta - x * x),
                 ratio = std::sinh(beta) / beta * z / std::sinh(z);
    return (k == 0 ? 0.5 : 1) * ratio * ratio * 2 / static_cast<double>(points);
  }
  void MakeWeights() {
    const double share = static_cast<double>(points) / static_cast<double>(n);
    for (int64_t m = 0; m < rows; ++m) {
      for (int64_t t = 0; t < n; ++t) {
        const double token = (static_cast<double>(t) + 0.5) * share,
                     point = static_cast<double>(m) + 0.5;
        const double w = Window(point - token) + Window(point + token);
        if (w == 0) continue;
        if (m < half) {
          spread[m].push_back({t, Rounded(share * w, kDoubt * share * w)});
          weights[m] += spread[m].back().second.value;
        }
        read[t].push_back({m, Rounded(w, kDoubt * w)});
      }
    }
  }
  void MakeFilter(int parity) {
    std::vector<double> by_distance(points + kEdge);
    double gains = 0;
    for (int64_t k = parity; k < kept; k += 2) {
      gains += Gain(k);
      for (int64_t d = 0; d < points + kEdge; ++d) {
        by_distance[d] += Gain(k) * std::cos(M_PI * static_cast<double>(k * d % (2 * points)) /
                                             static_cast<double>(points));
      }
    }
    for (int64_t m = 0; m < rows; ++m) {
      for (int64_t i = 0; i < half; ++i) {
        filter[parity].emplace_back(by_distance[std::abs(m - i)] + by_distance[m + i + 1],
                                    2 * kDoubt * gains);
      }
    }
  }
};

// One channel's numbers on the grid, for both parities, and their errors.
struct GridNumbers {
  std::vector<double> values[2], errors[2];
};

// Folds a channel x: half the sum and half the difference of a point and its mirror image.
GridNumbers Fold(const GridModel& g, const std::vector<float>& x, float mean) {
  GridNumbers folded;
  for (int64_t m = 0; m < g.half; ++m) {
    double sides[2] = {}, size = std::fabs(g.weights[m] * mean), doubt = 0;
    for (const auto& [t, w] : g.spread[m]) {
      const double a = x[t], b = x[g.n - 1 - t], both = (std::fabs(a) + std::fabs(b)) / 2;
      sides[0] += w.value * a;
      sides[1] += w.value * b;
      size += std::fabs(w.value) * both;
      doubt += w.error * (both + std::fabs(mean));
    }
    for (const int p : {0, 1}) {
      const double z =
          p == 0 ? (sides[0] + sides[1]) / 2 - g.weights[m] * mean : (sides[0] - sides[1]) / 2;
      folded.values[p].push_back(z);
      const double exact = doubt + Gamma(2 * std::ssize(g.spread[m]) + 8) * size;
      folded.errors[p].push_back(exact + kHalf * (std::fabs(z) + exact) + kSmallest);
    }
  }
  return folded;
}

GridNumbers Filter(const GridModel& g, const GridNumbers& folded) {
  GridNumbers filtered;
  for (const int p : {0, 1}) {
    for (int64_t m = 0; m < g.rows; ++m) {
      double y = 0, size = 0, error = 0;
      for (int64_t j = 0; j < g.half; ++j) {
        const Rounded& d = g.filter[p][m * g.half + j];
        const double in = folded.values[p][j];
        y += d.value * in;
        size += std::fabs(d.value * in);
        error += (std::fabs(d.value) + d.error) * folded.errors[p][j] + d.error * std::fabs(in);
      }
      error += Gamma(2 * g.half + 8) * size;
      filtered.values[p].push_back(y);
      filtered.errors[p].push_back(error + kHalf * (std::fabs(y) + error) + kSmallest);
    }
  }
  return filtered;
}

// Returns token t's base and its error.
std::pair<double, double> Interpolate(const GridModel& g, const GridNumbers& filtered, float mean,
                                      int64_t t) {
  const bool mirrored = 2 * t >= g.n;
  double base = mean, size = std::fabs(mean), e = 0;
  for (const auto& [m, w] : g.read[mirrored ? g.n - 1 - t : t]) {
    if (m >= g.rows) continue;
    const double even = filtered.values[0][m], odd = filtered.values[1][m];
    const double y = even + (mirrored ? -1 : 1) * odd;
    base += w.value * y;
    size += std::fabs(w.value) * (std::fabs(even) + std::fabs(odd));
    e += (w.value + w.error) * (filtered.errors[0][m] + filtered.errors[1][m]) +
         w.error * std::fabs(y);
  }
  return {base, e + Gamma(2 * std::ssize(g.read[t]) + 8) * size};
}

// The mean of a channel over tokens at equal distances, in the device's order.
float MeanOf(const std::vector<float>& x) {
  const int64_t n = std::ssize(x), stride = CeilDiv<int64_t>(n, 64), samples = CeilDiv(n, stride);
  float mean = 0;
  for (int64_t s = 0; s < samples; ++s) mean += x[s * stride];
  return mean / static_cast<float>(samples);
}

}  // namespace

Layers::Layers(const KvGeometry& geometry, int64_t tokens, uint64_t seed)
    : geometry_(geometry), pages_of_layer_(CeilDiv<int64_t>(tokens, 16)), memory_(Pages() + 1) {
  Random random(seed);
  pages_.resize(Pages());
  std::iota(pages_.begin(), pages_.end(), 0u);
  std::shuffle(pages_.begin(), pages_.end(), random.engine());
  const auto units = static_cast<PageId>(PageBytes(Format::kRaw16, geometry) / kPageUnitBytes);
  for (PageId& page : pages_) page *= units;
  memory_.resize((Pages() + 1) * units);
  for (int layer = 0; layer < geometry.layers; ++layer) {
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t i = 0; i < Row(); ++i) {
        // A smooth signal with noise that is larger for some tokens. K is larger than V, and a
        // few channels are far from zero.
        const double smooth = std::sin(static_cast<double>(t) * 0.01 * static_cast<double>(i % 7));
        const float noise = random.Normal() * (t % 13 == layer ? 3.0f : 0.3f);
        const float offset = i % 9 == 0 ? 15.0f : 0.0f;
        At(layer, t, i) =
            FloatToHalf((static_cast<float>(smooth) + noise + offset) * (i % 2 ? 1.f : 4.f));
      }
    }
  }
}

Expected PlainDct(Layers& layers, const LowPassCase& c, bool direct) {
  Expected out;
  const auto n = static_cast<double>(c.tokens);
  std::vector<double> basis(c.kept * c.tokens);
  for (int64_t m = 0; m < c.kept; ++m) {
    for (int64_t t = 0; t < c.tokens; ++t) {
      basis[m * c.tokens + t] = std::sqrt((m ? 2 : 1) / n) *
                                std::cos(M_PI * static_cast<double>(m * (2 * t + 1)) / (2 * n));
    }
  }
  // Errors of one base value, as a share of its channels' norms. By transforms: 2 log2(L) levels of
  // 6.7 u each and 4 u for the product (Higham, Accuracy and Stability, theorem 24.2), on a pair of
  // even extensions (norm: twice the larger of two channels), through a spectrum below 2. Direct:
  // rows of a projector have norm 1 at most.
  const double levels = std::ceil(std::log2(3 * n));
  const double share =
      direct ? Gamma(c.tokens + 4) : 2 * (2 * levels * 6.7 + 4) * kUnit * 2 / (1 - 1e-4);
  for (int layer = 0; layer < c.geometry.layers; ++layer) {
    std::vector<double> sums(c.tokens * 4), errors(c.tokens * 2);
    double norm = 0;  // the largest norm of a channel
    for (int64_t i = 0; i < layers.Row(); ++i) {
      double energy = 0;
      for (int64_t t = 0; t < c.tokens; ++t) {
        energy += std::pow(HalfToFloat(layers.At(layer, c.first + t, i)), 2);
      }
      norm = std::max(norm, std::sqrt(energy));
    }
    for (int64_t i = 0; i < layers.Row(); ++i) {
      const bool value = i / c.geometry.head_dim % 2 == 1;
      std::vector<double> x(c.tokens), base(c.tokens);
      for (int64_t t = 0; t < c.tokens; ++t) x[t] = HalfToFloat(layers.At(layer, c.first + t, i));
      for (int64_t m = 0; m < c.kept; ++m) {
        const double* b = &basis[m * c.tokens];
        const double coefficient = std::inner_product(x.begin(), x.end(), b, 0.0);
        for (int64_t t = 0; t < c.tokens; ++t) base[t] += coefficient * b[t];
      }
      for (int64_t t = 0; t < c.tokens; ++t) {
        const double d = std::fabs(x[t] - base[t]), e = share * norm + kUnit * d;
        sums[t * 4 + value] += d * d;
        sums[t * 4 + 2 + value] += x[t] * x[t];
        errors[t * 2 + value] += 2 * d * e + e * e;
      }
    }
    Append(sums, errors, layers.Row(), &out);
  }
  return out;
}

Expected OnGrid(Layers& layers, const LowPassCase& c) {
  const GridModel grid(c);
  Expected out;
  for (int layer = 0; layer < c.geometry.layers; ++layer) {
    std::vector<double> sums(c.tokens * 4), errors(c.tokens * 2);
    for (int64_t i = 0; i < layers.Row(); ++i) {
      const bool value = i / c.geometry.head_dim % 2 == 1;
      std::vector<float> x(c.tokens);
      for (int64_t t = 0; t < c.tokens; ++t) x[t] = HalfToFloat(layers.At(layer, c.first + t, i));
      const float mean = MeanOf(x);
      const GridNumbers filtered = Filter(grid, Fold(grid, x, mean));
      for (int64_t t = 0; t < c.tokens; ++t) {
        const auto [base, e] = Interpolate(grid, filtered, mean, t);
        const double d = std::fabs(x[t] - base);
        sums[t * 4 + value] += d * d;
        sums[t * 4 + 2 + value] += std::pow(x[t], 2);
        errors[t * 2 + value] += 2 * d * e + e * e;
      }
    }
    Append(sums, errors, layers.Row(), &out);
  }
  return out;
}

}  // namespace tessera::testing
