// Compares low-pass residuals with a plain DCT on every backend. On the CPU they must have the same
// bits on every instruction set.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/half.h"
#include "tests/kernels/test_util.h"

namespace tessera::testing {
namespace {

class LowPassTest : public BackendTest {
 protected:
  std::unique_ptr<Ops> scalar_ = MakeCpu("scalar", 1);
};

// Layers of RAW16 pages in random order, filled with tokens.
class Layers {
 public:
  Layers(const KvGeometry& geometry, int64_t tokens, uint64_t seed)
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
          const double smooth =
              std::sin(static_cast<double>(t) * 0.01 * static_cast<double>(i % 7));
          const float noise = random.Normal() * (t % 13 == layer ? 3.0f : 0.3f);
          const float offset = i % 9 == 0 ? 15.0f : 0.0f;
          At(layer, t, i) =
              FloatToHalf((static_cast<float>(smooth) + noise + offset) * (i % 2 ? 1.f : 4.f));
        }
      }
    }
  }
  const uint8_t* arena() const { return memory_[0].bytes; }
  const PageId* pages() const { return pages_.data(); }
  int64_t layer_pages() const { return pages_of_layer_; }
  int64_t Row() const { return int64_t{2} * geometry_.kv_heads * geometry_.head_dim; }
  // Returns channel i of all channels; K and V of a head are neighbours.
  uint16_t& At(int layer, int64_t token, int64_t i) {
    const auto dim = int64_t{geometry_.head_dim};
    const PageId page = pages_[layer * pages_of_layer_ + token / 16];
    return reinterpret_cast<uint16_t*>(
        memory_[page].bytes + Raw16Offset(geometry_.head_dim, static_cast<int>(i / dim / 2),
                                          i / dim % 2 == 1, static_cast<int>(token % 16)))[i % dim];
  }

 private:
  struct alignas(kPageUnitBytes) Unit {
    uint8_t bytes[kPageUnitBytes];
  };
  int64_t Pages() const { return geometry_.layers * pages_of_layer_; }

  KvGeometry geometry_;
  int64_t pages_of_layer_;
  std::vector<PageId> pages_;
  std::vector<Unit> memory_;
};

struct LowPassCase {
  KvGeometry geometry;
  int64_t stored, first, tokens, kept;
};

// Returns [layers, tokens, 4] and expects that no other token's numbers are written.
std::vector<float> Residuals(Ops& ops, Layers& layers, const LowPassCase& c) {
  const int64_t beyond = 2, all = c.first + c.tokens + beyond;
  std::vector<float> out(c.geometry.layers * all * 4, -7), own;
  ops.LowPassResiduals(
      layers.arena(), c.geometry, layers.pages(), layers.layer_pages(),
      {static_cast<int32_t>(c.first), static_cast<int32_t>(c.tokens), static_cast<int32_t>(c.kept)},
      all, out.data());
  for (int64_t i = 0; i < std::ssize(out); ++i) {
    const int64_t t = i / 4 % all - c.first;
    if (0 <= t && t < c.tokens) {
      own.push_back(out[i]);
    } else {
      EXPECT_EQ(out[i], -7) << "of token " << t + c.first;
    }
  }
  return own;
}

// The values that ops.h defines, from the definition of the DCT, and the error allowed to a float
// computation.
struct Expected {
  std::vector<float> values;  // [layers, tokens, 4]
  std::vector<double> bounds;
};
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

// The same through a grid (cuda/low_pass/grid.cu), from its definition, with its weights and filter
// as rounded. The bounds are the roundings of the grid's numbers and the doubt of the weights.
Expected OnGrid(Layers& layers, const LowPassCase& c) {
  constexpr double kHalf = 0x1p-11, kSmallest = 0x1p-25;  // roundings to half: relative, absolute
  constexpr double kDoubt = 0x1p-18;  // relative error of a window's weight in float
  constexpr int kReach = 5, kEdge = 8;
  const int64_t n = c.tokens, points = CeilDiv<int64_t>(3 * c.kept, 32) * 16;
  const int64_t half = points / 2, rows = half + kEdge;
  const double share = static_cast<double>(points) / static_cast<double>(n);
  const double width =
      kReach * (1 - 0.5 * static_cast<double>(c.kept) / static_cast<double>(points));
  const double beta = M_PI * std::sqrt(width * width - 0.8);
  const auto window = [&](double distance) {
    const double x = 2 * distance / kReach;
    return std::fabs(x) < 1 ? std::cyl_bessel_i(0, beta * std::sqrt(1 - x * x)) * beta /
                                  (kReach * std::sinh(beta))
                            : 0;
  };
  // The weight of a token on a point: spread [half, n], read [n, rows].
  std::vector<std::vector<std::pair<int64_t, Rounded>>> spread(half), read(n);
  std::vector<double> weights(half);
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t t = 0; t < n; ++t) {
      const double token = (static_cast<double>(t) + 0.5) * share,
                   point = static_cast<double>(m) + 0.5;
      const double w = window(point - token) + window(point + token);
      if (w == 0) continue;
      if (m < half) {
        spread[m].push_back({t, Rounded(share * w, kDoubt * share * w)});
        weights[m] += spread[m].back().second.value;
      }
      read[t].push_back({m, Rounded(w, kDoubt * w)});
    }
  }
  // D for even and odd coefficients, [rows, half].
  std::vector<Rounded> filter[2];
  const auto gain = [&](int64_t k) {
    const double x = M_PI * kReach * static_cast<double>(k) / static_cast<double>(2 * points);
    const double z = std::sqrt(beta * beta - x * x),
                 ratio = std::sinh(beta) / beta * z / std::sinh(z);
    return (k == 0 ? 0.5 : 1) * ratio * ratio * 2 / static_cast<double>(points);
  };
  for (const int parity : {0, 1}) {
    std::vector<double> by_distance(points + kEdge);
    double gains = 0;
    for (int64_t k = parity; k < c.kept; k += 2) {
      gains += gain(k);
      for (int64_t d = 0; d < points + kEdge; ++d) {
        by_distance[d] += gain(k) * std::cos(M_PI * static_cast<double>(k * d % (2 * points)) /
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
  Expected out;
  for (int layer = 0; layer < c.geometry.layers; ++layer) {
    std::vector<double> sums(n * 4), errors(n * 2);
    for (int64_t i = 0; i < layers.Row(); ++i) {
      const bool value = i / c.geometry.head_dim % 2 == 1;
      const auto at = [&](int64_t t) { return HalfToFloat(layers.At(layer, c.first + t, i)); };
      const int64_t stride = CeilDiv<int64_t>(n, 64), samples = CeilDiv(n, stride);
      float mean = 0;
      for (int64_t s = 0; s < samples; ++s) mean += at(s * stride);
      mean /= static_cast<float>(samples);
      // Folds: half the sum and half the difference of a point and its mirror image.
      std::vector<double> folded[2], off[2];
      for (int64_t m = 0; m < half; ++m) {
        double sides[2] = {}, size = std::fabs(weights[m] * mean), doubt = 0;
        for (const auto& [t, w] : spread[m]) {
          const double x = at(t), y = at(n - 1 - t), both = (std::fabs(x) + std::fabs(y)) / 2;
          sides[0] += w.value * x;
          sides[1] += w.value * y;
          size += std::fabs(w.value) * both;
          doubt += w.error * (both + std::fabs(mean));
        }
        for (const int p : {0, 1}) {
          const double z =
              p == 0 ? (sides[0] + sides[1]) / 2 - weights[m] * mean : (sides[0] - sides[1]) / 2;
          folded[p].push_back(z);
          const double exact = doubt + Gamma(2 * std::ssize(spread[m]) + 8) * size;
          off[p].push_back(exact + kHalf * (std::fabs(z) + exact) + kSmallest);
        }
      }
      std::vector<double> filtered[2], wrong[2];
      for (const int p : {0, 1}) {
        for (int64_t m = 0; m < rows; ++m) {
          double y = 0, size = 0, error = 0;
          for (int64_t j = 0; j < half; ++j) {
            const Rounded& d = filter[p][m * half + j];
            y += d.value * folded[p][j];
            size += std::fabs(d.value * folded[p][j]);
            error += (std::fabs(d.value) + d.error) * off[p][j] + d.error * std::fabs(folded[p][j]);
          }
          error += Gamma(2 * half + 8) * size;
          filtered[p].push_back(y);
          wrong[p].push_back(error + kHalf * (std::fabs(y) + error) + kSmallest);
        }
      }
      for (int64_t t = 0; t < n; ++t) {
        const bool mirrored = 2 * t >= n;
        double base = mean, size = std::fabs(mean), e = 0;
        for (const auto& [m, w] : read[mirrored ? n - 1 - t : t]) {
          if (m >= rows) continue;
          const double y = filtered[0][m] + (mirrored ? -1 : 1) * filtered[1][m];
          base += w.value * y;
          size += std::fabs(w.value) * (std::fabs(filtered[0][m]) + std::fabs(filtered[1][m]));
          e += (w.value + w.error) * (wrong[0][m] + wrong[1][m]) + w.error * std::fabs(y);
        }
        e += Gamma(2 * std::ssize(read[t]) + 8) * size;
        const double d = std::fabs(at(t) - base);
        sums[t * 4 + value] += d * d;
        sums[t * 4 + 2 + value] += std::pow(at(t), 2);
        errors[t * 2 + value] += 2 * d * e + e * e;
      }
    }
    Append(sums, errors, layers.Row(), &out);
  }
  return out;
}

Expected ExpectedOf(const BackendCase& backend, Layers& layers, const LowPassCase& c) {
  if (backend.cuda() && !backend.precise()) return OnGrid(layers, c);
  return PlainDct(layers, c, backend.cuda());
}

// The result is near enough to choose tokens on any backend: the error of a token's distance from
// its base is a thousandth of the largest distance between a layer's tokens, however far all are
// from zero.
void ExpectNear(Layers& layers, const LowPassCase& c, const std::vector<float>& got,
                const std::vector<float>& exact) {
  for (int part = 0; part < 2 * c.geometry.layers; ++part) {
    const int layer = part / 2, value = part % 2;
    const auto at = [&](int64_t t) { return (layer * c.tokens + t) * 4 + value; };
    double longest = 0, norm = 0;
    for (int64_t t = 0; t < c.tokens; ++t) {
      double way = 0;
      for (int64_t i = 0; i < layers.Row(); ++i) {
        if (i / c.geometry.head_dim % 2 != value) continue;
        const float x = HalfToFloat(layers.At(layer, c.first + t, i));
        way += std::pow(x - HalfToFloat(layers.At(layer, c.first, i)), 2);
      }
      longest = std::max(longest, std::sqrt(way));
      norm = std::max<double>(norm, std::sqrt(exact[at(t) + 2]));
    }
    for (int64_t t = 0; t < c.tokens; ++t) {
      EXPECT_NEAR(std::sqrt(got[at(t)]), std::sqrt(exact[at(t)]),
                  1e-3 * longest + 16 * kUnit * norm);
    }
  }
}

TEST_P(LowPassTest, LowPassResidualsAreThoseOfAPlainDct) {
  const LowPassCase cases[] = {
      {{2, 2, 64}, 300, 0, 300, 61},     // a composite number of tokens
      {{1, 1, 128}, 211, 0, 211, 43},    // a prime one
      {{1, 3, 40}, 150, 17, 101, 1},     // a segment; the mean alone; a head that fills no group
      {{2, 1, 32}, 90, 80, 10, 10},      // all coefficients: nothing is left
      {{1, 2, 16}, 16, 3, 1, 1},         // one token
      {{1, 1, 64}, 1030, 0, 1024, 205},  // a power of two
      {{1, 6, 128}, 50, 1, 49, 11},      // more channels than a block sums up
      {{1, 1, 16}, 700, 0, 700, 2},      // few coefficients
      {{1, 1, 16}, 64, 0, 43, 43},       // few tokens, all coefficients
  };
  for (const LowPassCase& c : cases) {
    SCOPED_TRACE(c.tokens);
    Layers layers(c.geometry, c.stored, 7 + c.tokens);
    const std::vector<float> got = Residuals(*ops_, layers, c);
    const Expected expected = ExpectedOf(GetParam(), layers, c);
    ExpectWithin(got, expected.values, expected.bounds, "plain DCT");
    const Expected exact = PlainDct(layers, c, false);
    ExpectNear(layers, c, got, exact.values);
    std::vector<double> rounding;
    for (float v : exact.values) rounding.push_back(kUnit * v + 1e-12 * std::fabs(v) + 1e-20);
    ExpectWithin(Residuals(*reference_, layers, c), exact.values, rounding, "the reference");
    if (GetParam().cuda()) continue;
    ExpectSameBits(got, Residuals(*scalar_, layers, c), "another instruction set");
  }
}

// With this many coefficients the device computes its filter in parts.
TEST_P(LowPassTest, NothingIsLeftOfALongPromptBesideAllItsCoefficients) {
  const LowPassCase c = {{1, 1, 16}, 17'000, 0, 17'000, 17'000};
  Layers layers(c.geometry, c.stored, 13);
  std::vector<float> exact(c.tokens * 4);
  for (int64_t t = 0; t < c.tokens; ++t) {
    for (int64_t i = 0; i < layers.Row(); ++i) {
      exact[t * 4 + 2 + i / c.geometry.head_dim % 2] +=
          std::pow(HalfToFloat(layers.At(0, t, i)), 2.0f);
    }
  }
  ExpectNear(layers, c, Residuals(*ops_, layers, c), exact);
}

// Parseval: the spectrum above the cut-off has the energy that the base leaves, so a layer's
// outlier energy needs no second pass (FlashCache's budget identity).
TEST_P(LowPassTest, LowPassResidualsAddUpToTheEnergyAboveTheCutOff) {
  const LowPassCase c = {{1, 2, 32}, 120, 0, 120, 25};
  Layers layers(c.geometry, c.stored, 11);
  const std::vector<float> got = Residuals(*ops_, layers, c);
  const Expected expected = ExpectedOf(GetParam(), layers, c);
  for (const int value : {0, 1}) {
    double above = 0, all = 0, residuals = 0, norms = 0, bound = 0;
    for (int64_t i = 0; i < layers.Row(); ++i) {
      if (i / c.geometry.head_dim % 2 != value) continue;
      for (int64_t m = 0; m < c.tokens; ++m) {
        double coefficient = 0;
        for (int64_t t = 0; t < c.tokens; ++t) {
          coefficient += HalfToFloat(layers.At(0, t, i)) *
                         std::cos(M_PI * static_cast<double>(m * (2 * t + 1)) /
                                  static_cast<double>(2 * c.tokens));
        }
        const double power =
            coefficient * coefficient * (m ? 2.0 : 1.0) / static_cast<double>(c.tokens);
        all += power;
        if (m >= c.kept) above += power;
      }
    }
    for (int64_t t = 0; t < c.tokens; ++t) {
      residuals += got[t * 4 + value];
      norms += got[t * 4 + 2 + value];
      bound += expected.bounds[t * 4 + value] + kUnit * got[t * 4 + value];
    }
    EXPECT_NEAR(residuals, above, bound);
    EXPECT_NEAR(norms, all, Gamma(layers.Row() + 8) * all);
    EXPECT_GT(above / all, 0.01);  // there is energy above and below the cut-off
    EXPECT_LT(above / all, 0.99);
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, LowPassTest, ::testing::ValuesIn(AllCpuCases()), CaseName);
INSTANTIATE_TEST_SUITE_P(Cuda, LowPassTest, ::testing::ValuesIn(AllCudaCases()), CaseName);

}  // namespace
}  // namespace tessera::testing
