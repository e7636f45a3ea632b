// Compares low-pass residuals with a plain DCT on every backend. On the CPU they must have the same
// bits on every instruction set.
#include <algorithm>
#include <cmath>

#include "base/half.h"
#include "tests/kernels/low_pass_model.h"
#include "tests/kernels/test_util.h"

namespace tessera::testing {
namespace {

class LowPassTest : public BackendTest {
 protected:
  std::unique_ptr<Ops> scalar_ = MakeCpu("scalar", 1);
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
