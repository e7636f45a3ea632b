#include "kernels/host/softmax_weights.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace tessera {
namespace {

TEST(SoftmaxWeights, AgreesWithTheExactExponential) {
  std::mt19937 random(3);
  std::vector<float> logits(100001);
  for (float& x : logits) x = -720.0f * std::pow(static_cast<float>(random()) * 0x1p-32f, 3.0f);
  logits[7] = 0;
  for (double temperature : {1.0, 0.37, 12.5}) {
    std::vector<double> weights(logits.size());
    SoftmaxWeights(logits, 0.0f, temperature, weights.data());
    EXPECT_EQ(weights[7], 1.0);
    for (size_t i = 0; i < logits.size(); ++i) {
      const double y = logits[i] * (1.0 / temperature);
      if (y < -708) {  // the last doubles with full precision
        ASSERT_LE(weights[i], std::exp(-708.0));
        if (y < -709) {
          ASSERT_EQ(weights[i], 0.0);
        }
        continue;
      }
      // The reduction's rounding is at most half a unit of |y|; the polynomial adds a few units.
      const double exact = static_cast<double>(std::exp(static_cast<long double>(y)));
      const double tolerance = 4 * std::numeric_limits<double>::epsilon() * exact;
      ASSERT_NEAR(weights[i], exact, tolerance) << y;
    }
  }
}

TEST(SoftmaxWeights, Extremes) {
  const float inf = std::numeric_limits<float>::infinity();
  const float most = std::numeric_limits<float>::max();
  double weights[3];
  SoftmaxWeights(std::vector<float>{-inf, most, -most}, most, 1e-45, weights);
  EXPECT_EQ(weights[0], 0);
  EXPECT_EQ(weights[1], 1);
  EXPECT_EQ(weights[2], 0);
  SoftmaxWeights(std::vector<float>{-inf, 5, 4}, 5, 100, weights);
  EXPECT_EQ(weights[0], 0);
  EXPECT_EQ(weights[1], 1);
  EXPECT_DOUBLE_EQ(weights[2], std::exp(-0.01));
}

TEST(SumOf, AddsEverythingOnce) {
  std::vector<double> numbers;
  double expected = 0;
  for (int n = 0; n < 50; ++n) {
    EXPECT_EQ(SumOf(numbers.data(), numbers.size()), expected);
    numbers.push_back(n * 3 + 1);
    expected += numbers.back();
  }
}

}  // namespace
}  // namespace tessera
