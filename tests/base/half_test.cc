// Tests every half value, every rounding border, and the SIMD conversions against half.h.
#include "base/half.h"

#include <bit>
#include <cmath>

#include "kernels/cpu/simd/isa.h"
#include "tests/kernels/test_util.h"

namespace tessera::testing {
namespace {

// Computes the value of a half from its definition.
double HalfValue(uint16_t h) {
  const double sign = h & 0x8000 ? -1 : 1;
  const int exponent = (h >> 10) & 31, mantissa = h & 0x3ff;
  if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(HalfTest, AllValuesToFloatAndBack) {
  for (uint32_t h = 0; h < 65536; ++h) {
    const auto bits = static_cast<uint16_t>(h);
    const double value = HalfValue(bits);
    const float f = HalfToFloat(bits);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(f)) << h;
      ASSERT_TRUE(std::isnan(HalfToFloat(FloatToHalf(f)))) << h;
    } else {
      ASSERT_EQ(f, value) << h;
      ASSERT_EQ(std::signbit(f), std::signbit(value)) << h;
      const bool infinite = std::isinf(value);
      ASSERT_EQ(FloatToHalf(f), infinite ? (bits & 0x8000) | 0x7bff : bits) << h;
    }
  }
}

// Between two neighbours, the tie rounds to the even one. The floats next to the tie round to the
// nearer one.
TEST(HalfTest, RoundsToNearestEven) {
  for (uint16_t h = 0; h < 0x7bff; ++h) {
    const auto tie = static_cast<float>((HalfValue(h) + HalfValue(h + 1)) / 2);
    const uint16_t even = h % 2 == 0 ? h : h + 1;
    ASSERT_EQ(FloatToHalf(tie), even) << h;
    ASSERT_EQ(FloatToHalf(-tie), even | 0x8000) << h;
    ASSERT_EQ(FloatToHalf(std::nextafterf(tie, 0)), h) << h;
    ASSERT_EQ(FloatToHalf(std::nextafterf(tie, INFINITY)), h + 1) << h;
  }
}

TEST(HalfTest, Saturates) {
  for (float f : {65504.0f, 65519.0f, 65520.0f, 1e6f, 3e38f, INFINITY}) {
    EXPECT_EQ(FloatToHalf(f), 0x7bff) << f;
    EXPECT_EQ(FloatToHalf(-f), 0xfbff) << f;
  }
  EXPECT_EQ(FloatToHalf(0x1p-26f), 0);
  EXPECT_EQ(FloatToHalf(-1e-40f), 0x8000);
}

TEST(BFloat16Test, AllValuesAndRounding) {
  for (uint32_t h = 0; h < 65536; ++h) {
    const auto bits = static_cast<uint16_t>(h);
    const float f = BFloat16ToFloat(bits);
    if (std::isnan(f)) {
      ASSERT_TRUE(std::isnan(BFloat16ToFloat(FloatToBFloat16(f))));
      continue;
    }
    ASSERT_EQ(FloatToBFloat16(f), bits);
    if (std::isinf(f)) continue;
    const float tie = std::bit_cast<float>((h << 16) + 0x8000);
    ASSERT_EQ(FloatToBFloat16(tie), h % 2 == 0 ? h : h + 1);
    ASSERT_EQ(FloatToBFloat16(std::bit_cast<float>((h << 16) + 0x7fff)), h);
    ASSERT_EQ(FloatToBFloat16(std::bit_cast<float>((h << 16) + 0x8001)), h + 1);
  }
  // A NaN with payload only in the lower 16 bits stays NaN.
  EXPECT_TRUE(std::isnan(BFloat16ToFloat(FloatToBFloat16(std::bit_cast<float>(0x7f800001u)))));
}

class HalfKernelTest : public ::testing::TestWithParam<const char*> {};

TEST_P(HalfKernelTest, SameAsScalarConversion) {
  if (!IsaAvailable(GetParam())) GTEST_SKIP() << "this machine lacks " << GetParam();
  const CpuKernels& kernels = **FindKernels(GetParam());
  // All halves, and all ties with their neighbours. An odd count also tests the tail loop.
  std::vector<uint16_t> halves(65535);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  std::vector<float> floats(halves.size());
  kernels.load_half(halves.data(), static_cast<int64_t>(halves.size()), floats.data());
  std::vector<float> inputs = {INFINITY, -INFINITY, 65519.99f, 65520.0f, -1e9f, 1e-40f, -1e-8f};
  for (size_t i = 0; i < halves.size(); ++i) {
    const float f = HalfToFloat(halves[i]);
    if (std::isnan(f)) {
      ASSERT_TRUE(std::isnan(floats[i]));
      continue;
    }
    ASSERT_EQ(std::bit_cast<uint32_t>(floats[i]), std::bit_cast<uint32_t>(f)) << i;
    if (std::isinf(f)) continue;
    const float next = HalfToFloat(static_cast<uint16_t>(halves[i] + 1));
    const float tie = std::isfinite(next) ? (f + next) / 2 : f;
    for (float x : {f, tie, std::nextafterf(tie, 0), std::nextafterf(tie, 1e30f)}) {
      inputs.push_back(x);
    }
  }
  std::vector<uint16_t> stored(inputs.size());
  kernels.store_half(inputs.data(), static_cast<int64_t>(inputs.size()), stored.data());
  for (size_t i = 0; i < inputs.size(); ++i) {
    ASSERT_EQ(stored[i], FloatToHalf(inputs[i])) << inputs[i];
  }
  const float nan = NAN;
  kernels.store_half(&nan, 1, stored.data());
  EXPECT_TRUE(std::isnan(HalfToFloat(stored[0])));
}

INSTANTIATE_TEST_SUITE_P(Cpu, HalfKernelTest, ::testing::Values("avx512", "avx2", "scalar"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace tessera::testing
