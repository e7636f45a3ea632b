// Tests the table of backends, the reference on cases computed by hand, and tensor views.
#include "kernels/backend/backend.h"

#include <algorithm>
#include <cmath>

#include "base/half.h"
#include "kernels/cuda/common/device.h"
#include "kernels/tensor.h"
#include "tests/kernels/test_util.h"

namespace tessera::testing {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(BackendTableTest, EveryNameWorksOrSaysWhyNot) {
  EXPECT_THAT(BackendNames(), ElementsAre("auto", "cpu", "cuda", "reference"));
  for (const std::string& name : BackendNames()) {
    const auto ops = MakeBackend(name, {});
    if (ops.ok()) {
      const std::string best = MakeBackend("cuda", {}).ok() ? "cuda" : "cpu";
      EXPECT_EQ((*ops)->name(), name == "auto" ? best : name);
    } else {
      EXPECT_EQ(name, "cuda");
      EXPECT_EQ(ops.status().code(), absl::StatusCode::kFailedPrecondition);
      const CudaDevices found = FindCudaDevices();
      const std::string message(ops.status().message());
      EXPECT_THAT(message, HasSubstr("no usable CUDA device"));
      if (found.devices.empty()) {
        EXPECT_THAT(message, HasSubstr(found.problem));
      }
      for (const CudaDevice& d : found.devices) EXPECT_THAT(message, HasSubstr(d.name));
    }
  }
}

TEST(BackendTableTest, CudaDevicesOrAProblem) {
  const CudaDevices found = FindCudaDevices();
  EXPECT_EQ(found.devices.empty(), !found.problem.empty());
  for (const CudaDevice& d : found.devices) {
    EXPECT_FALSE(d.name.empty());
    EXPECT_GE(d.major, 5);
    EXPECT_GT(d.memory_bytes, int64_t{1} << 30);
  }
}

TEST(BackendTableTest, BadOptionsAreErrors) {
  const auto code = [](const char* device, const BackendOptions& options) {
    return MakeBackend(device, options).status().code();
  };
  EXPECT_EQ(code("tpu", {}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("", {}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("cpu", {.cpu_threads = -1}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("cpu", {.cpu_threads = 1 << 20}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("cpu", {.cpu_isa = "mmx"}), absl::StatusCode::kInvalidArgument);
  for (const char* isa : {"avx512", "avx2"}) {
    if (IsaAvailable(isa)) continue;
    EXPECT_EQ(code("cpu", {.cpu_isa = isa}), absl::StatusCode::kFailedPrecondition);
  }
}

TEST(BackendTableTest, ScalarIsAlwaysThereAndTheBestIsChosen) {
  EXPECT_THAT(CpuInstructionSets(), Contains("scalar"));
  EXPECT_EQ(CpuInstructionSets().front(), CpuInstructionSet());
}

// The other suites compare with the reference, which is itself compared with arithmetic by hand.
class ReferenceTest : public ::testing::Test {
 protected:
  std::unique_ptr<Ops> ops_ = MakeReference();
};

TEST_F(ReferenceTest, MatMul) {
  const float w[] = {1, 2, 3, 4, 5, 6}, b[] = {10, 20}, more[] = {0, 0, -1}, more_b[] = {0.5};
  const Linear linear = ops_->MakeLinear({{w, b, 2}, {more, more_b, 1}}, 3, DType::kF32);
  const float x[] = {1, 1, 1, 0, 1, -1}, residual[] = {100, 200, 300, 400, 500, 600};
  std::vector<float> y(6);
  ops_->MatMul(linear, x, 2, y.data(), Activation::kNone, residual);
  EXPECT_THAT(y, ElementsAre(116, 235, 299.5, 409, 519, 601.5));
}

TEST_F(ReferenceTest, Activations) {
  const float one = 1, x = 0.75;
  const Linear linear = ops_->MakeLinear({{&one, nullptr, 1}}, 1, DType::kF32);
  float y;
  ops_->MatMul(linear, &x, 1, &y, Activation::kGelu);
  EXPECT_FLOAT_EQ(y, 0.58002955f);  // 0.75 Phi(0.75), Phi(0.75) = 0.7733726
  ops_->MatMul(linear, &x, 1, &y, Activation::kQuickGelu);
  EXPECT_FLOAT_EQ(y, 0.75f / (1 + std::exp(-1.2765f)));
  ops_->MatMul(linear, &x, 1, &y, Activation::kSilu);
  EXPECT_FLOAT_EQ(y, 0.50938401f);  // 0.75 / (1 + 0.47236655)
}

TEST_F(ReferenceTest, Norms) {
  const float x[] = {3, 4, 0, 0}, ones[] = {1, 1, 1, 2}, zeros[] = {0, 0, 0, 5};
  std::vector<float> y(4);
  ops_->RmsNorm(x, ones, 1, 4, 0, y.data());
  EXPECT_THAT(y, ElementsAre(1.2f, 1.6f, 0, 0));  // sqrt(25 / 4) = 2.5
  const float z[] = {1, 3, 1, 3};
  ops_->LayerNorm(z, ones, zeros, 1, 4, 0, y.data());
  EXPECT_THAT(y, ElementsAre(-1, 1, -1, 7));
}

TEST_F(ReferenceTest, RopeTurnsPairsByTheAngleOfTheirPosition) {
  // Position 1 rotates by 90 degrees: (a, b) becomes (-b, a), for pairs (i, i + d/2).
  PagedCache cache({.kv_heads = 1, .head_dim = 8, .run_tokens = {{2}}}, 1, 2);
  const std::vector<float> cos = {1, 1, 1, 1, 0, 0, 0, 0}, sin = {0, 0, 0, 0, 1, 1, 1, 1};
  std::vector<float> qkv;
  for (int i = 0; i < 48; ++i) qkv.push_back(static_cast<float>(i));
  const int32_t positions[] = {0, 1};
  const KvSlot slots[] = {cache.Slot(0, 1), cache.Slot(0, 0)};
  ops_->RopeAndStore(qkv.data(), positions, slots, nullptr, 2, 1, {cos.data(), sin.data()},
                     cache.view());
  EXPECT_EQ(qkv[0], 0);     // position 0 stays
  EXPECT_EQ(qkv[24], -28);  // q
  EXPECT_EQ(qkv[28], 24);
  EXPECT_EQ(HalfToFloat(cache.At(0, 0, 0, false, 1)), -37);  // k of row 1 = 32 .. 39
  EXPECT_EQ(HalfToFloat(cache.At(0, 0, 0, false, 5)), 33);
  EXPECT_EQ(HalfToFloat(cache.At(0, 0, 0, true, 3)), 43);  // v is not rotated
  EXPECT_EQ(HalfToFloat(cache.At(0, 1, 0, true, 0)), 16);
}

TEST_F(ReferenceTest, AttentionIsCausalAndWeighsByExp) {
  PagedCache cache({.kv_heads = 1, .head_dim = 8, .run_tokens = {{3}}}, 1, 2);
  for (int t = 0; t < 3; ++t) {
    for (int i = 0; i < 8; ++i) {
      cache.At(0, t, 0, false, i) = FloatToHalf(i == 0 ? static_cast<float>(t) : 0);
      cache.At(0, t, 0, true, i) = FloatToHalf(static_cast<float>(10 * t + i));
    }
  }
  std::vector<float> qkv(2 * 24, 0), out(16);
  qkv[0] = 0;  // row 0 sees tokens 0 and 1, equal weights
  qkv[24] = static_cast<float>(std::log(2) * std::sqrt(8));  // row 1: weights 1, 2, 4
  const int32_t begin[] = {0, 2};
  ops_->PagedAttention(qkv.data(), begin, nullptr, 1, 1, cache.view(), out.data());
  EXPECT_FLOAT_EQ(out[0], 5);
  EXPECT_FLOAT_EQ(out[7], 12);
  EXPECT_FLOAT_EQ(out[8], 100.0f / 7);
}

TEST_F(ReferenceTest, VitAttentionSeesEverything) {
  // Two tokens, one head of 8: scores equal, so both rows get the mean of the values.
  std::vector<float> qkv(2 * 24, 0), out(16);
  qkv[16] = 1;
  qkv[40] = 3;
  ops_->VitAttention(qkv.data(), 1, 2, 1, 8, out.data());
  EXPECT_FLOAT_EQ(out[0], 2);
  EXPECT_FLOAT_EQ(out[8], 2);
}

TEST(TensorTest, ReadsAnyDtypeAtAnyAlignment) {
  const std::vector<float> values = {1, -0.5, 3};
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (bool misaligned : {false, true}) {
      const Stored stored(values, dtype, misaligned);
      const HostTensor t{stored.data(), dtype, {3, 1}};
      EXPECT_EQ(t.elements(), 3);
      EXPECT_EQ(t.bytes(), 3 * DTypeBytes(dtype));
      EXPECT_EQ(ToFloats(t), values);
    }
  }
}

}  // namespace
}  // namespace tessera::testing
