// Measures the errors of exp and erf over the whole range of float, for every instruction set, and
// compares their bits.
#include <bit>
#include <cmath>

#include "kernels/cpu/simd/isa.h"
#include "tests/kernels/test_util.h"

namespace tessera::testing {
namespace {

using Function = void (*)(const float*, int64_t, float*);

// Returns every float whose bits are a multiple of `step`: all signs and exponents, and infinities.
std::vector<float> SampleFloats(uint32_t step) {
  std::vector<float> v;
  for (uint64_t u = 0; u <= 0xffffffffu; u += step) {
    const float f = std::bit_cast<float>(static_cast<uint32_t>(u));
    if (!std::isnan(f)) v.push_back(f);
  }
  for (float f : {INFINITY, -INFINITY, 0.0f, -0.0f, 88.72283f, 88.72284f, -87.33655f, -103.97f,
                  -103.98f, 1.0f, -1.0f, 0.99999994f}) {
    v.push_back(f);
  }
  return v;
}

// Returns the largest error in units in the last place of the true value (for subnormals: of the
// smallest).
double WorstUlps(const std::vector<float>& x, const std::vector<float>& y, double (*truth)(double),
                 float* at) {
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double t = truth(x[i]);
    const auto rounded = static_cast<float>(t);
    if (rounded == y[i]) continue;  // also infinities
    const double ulp = std::ldexp(1.0, std::max(std::ilogb(t) - 23, -149));
    const double error = std::fabs(y[i] - t) / ulp;
    if (!(error <= worst)) {
      worst = error;
      *at = x[i];
    }
  }
  return worst;
}

class MathTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!IsaAvailable(GetParam())) GTEST_SKIP() << "this machine lacks " << GetParam();
    kernels_ = *FindKernels(GetParam());
  }
  void Check(Function f, Function scalar, double (*truth)(double), double limit_ulps) {
    const std::vector<float> x = SampleFloats(GetParam() == std::string("scalar") ? 4091 : 1021);
    std::vector<float> y(x.size());
    f(x.data(), static_cast<int64_t>(x.size()), y.data());
    float at = 0;
    const double worst = WorstUlps(x, y, truth, &at);
    RecordProperty("worst_ulps", std::to_string(worst));
    EXPECT_LE(worst, limit_ulps) << "at " << at;
    const auto prefix = std::min<int64_t>(static_cast<int64_t>(x.size()), 1 << 16);
    std::vector<float> same(prefix);
    const float* part = x.data() + (x.size() - prefix) / 3;  // around 1, where all terms matter
    scalar(part, prefix, same.data());
    for (int64_t i = 0; i < prefix; ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(same[i]), std::bit_cast<uint32_t>(y[part - x.data() + i]))
          << "differs from scalar at " << part[i];
    }
    float nan = NAN;
    f(&nan, 1, &nan);
    EXPECT_TRUE(std::isnan(nan));
  }
  const CpuKernels* kernels_ = nullptr;
};

TEST_P(MathTest, Exp) {
  Check(
      kernels_->exp, ScalarKernels().exp, [](double x) { return std::exp(x); }, 1.5);
}
TEST_P(MathTest, Erf) {
  Check(
      kernels_->erf, ScalarKernels().erf, [](double x) { return std::erf(x); }, 1.5);
}

INSTANTIATE_TEST_SUITE_P(Cpu, MathTest, ::testing::Values("avx512", "avx2", "scalar"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace tessera::testing
