// Compares every backend's row-wise ops with the reference; rotation, patches and copies bit for
// bit.
#include <cmath>
#include <cstring>
#include <limits>

#include "base/half.h"
#include "tests/kernels/test_util.h"

namespace tessera::testing {
namespace {

class RowsTest : public BackendTest {
 protected:
  static constexpr int64_t kWidths[] = {1, 15, 16, 17, 31, 33, 256, 1000};
};

TEST_P(RowsTest, Embed) {
  Random random(1);
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (int64_t cols : kWidths) {
      const Stored table(random.Normals(11 * cols), dtype, true);
      const std::vector<int32_t> ids = {10, 0, 3, 3};
      std::vector<float> out(4 * cols), expected = out;
      ops_->Embed(table.data(), dtype, ids.data(), 4, cols, out.data());
      reference_->Embed(table.data(), dtype, ids.data(), 4, cols, expected.data());
      ExpectSameBits(out, expected, DTypeName(dtype));
      EXPECT_EQ(out[cols], table[0]);
    }
  }
}

TEST_P(RowsTest, TakeSampled) {
  const std::vector<int32_t> sampled = {100, 200, 300};
  std::vector<int32_t> ids = {5, -3, 0, -1, -3, 7};
  ops_->TakeSampled(sampled.data(), ids.data(), 6);
  EXPECT_EQ(ids, (std::vector<int32_t>{5, 300, 0, 100, 300, 7}));
  std::vector<int32_t> many(1000), expected(1000);
  for (int i = 0; i < 1000; ++i)
    many[i] = i % 3 == 0 ? -1 - i % 2 : i, expected[i] = i % 3 == 0 ? sampled[i % 2] : i;
  ops_->TakeSampled(sampled.data(), many.data(), 1000);
  EXPECT_EQ(many, expected);
}

TEST_P(RowsTest, WhatWasCopiedBeforeAMarkIsThere) {
  const int64_t bytes = 1 << 20;
  const Buffer device = ops_->Allocate(bytes);
  Buffer host[Ops::kEvents];
  std::vector<uint8_t> value(bytes);
  for (int event = 0; event < Ops::kEvents; ++event) {
    host[event] = ops_->AllocateStaging(bytes);
    value.assign(bytes, static_cast<uint8_t>(event + 1));
    ops_->CopyToDevice(device.get(), value.data(), bytes);
    ops_->BeginCopyToHost(host[event].get(), device.get(), bytes);
    ops_->RecordEvent(event);
  }
  for (int event = 0; event < Ops::kEvents; ++event) {
    ops_->WaitEvent(event);
    value.assign(bytes, static_cast<uint8_t>(event + 1));
    EXPECT_EQ(std::memcmp(host[event].get(), value.data(), bytes), 0);
    if (event == 0) continue;
    EXPECT_GT(ops_->SecondsBetween(event - 1, event), 0);
    EXPECT_LT(ops_->SecondsBetween(event - 1, event), 60);
  }
}

TEST_P(RowsTest, ScatterAndGather) {
  Random random(2);
  const int64_t rows = 700, cols = 33;
  const std::vector<float> in = random.Normals(rows * cols);
  std::vector<int32_t> to(rows);
  for (int64_t i = 0; i < rows; ++i) to[i] = static_cast<int32_t>(rows - 1 - i);
  std::vector<float> out(rows * cols), back(rows * cols);
  ops_->ScatterRows(in.data(), to.data(), rows, cols, out.data());
  for (int64_t i = 0; i < rows * cols; ++i) {
    ASSERT_EQ(out[i], in[(rows - 1 - i / cols) * cols + i % cols]);
  }
  ops_->GatherRows(out.data(), to.data(), rows, cols, back.data());
  ExpectSameBits(back, in, "gather after scatter");
}

TEST_P(RowsTest, RmsNormInPlace) {
  Random random(3);
  for (int64_t cols : kWidths) {
    const int64_t rows = 37;
    std::vector<float> x = random.Normals(rows * cols, 3), expected(x.size());
    const std::vector<float> w = random.Normals(cols);
    reference_->RmsNorm(x.data(), w.data(), rows, cols, 1e-5f, expected.data());
    ops_->RmsNorm(x.data(), w.data(), rows, cols, 1e-5f, x.data());
    std::vector<double> bound;
    // The sum of squares has at most cols / 16 + 6 roundings, which count half under the root.
    for (float y : expected) bound.push_back((Gamma(cols / 16 + 6) / 2 + 5 * kUnit) * std::fabs(y));
    ExpectWithin(x, expected, bound, "cols " + std::to_string(cols));
  }
}

TEST_P(RowsTest, LayerNormInPlace) {
  Random random(4);
  const float eps = 1e-5f;
  for (int64_t cols : kWidths) {
    const int64_t rows = 37;
    std::vector<float> x = random.Normals(rows * cols, 3);
    for (float& v : x) v += 5;  // a mean that must not affect the variance
    const std::vector<float> w = random.Normals(cols), b = random.Normals(cols), in = x;
    std::vector<float> expected(x.size());
    reference_->LayerNorm(in.data(), w.data(), b.data(), rows, cols, eps, expected.data());
    ops_->LayerNorm(in.data(), w.data(), b.data(), rows, cols, eps, x.data());
    std::vector<double> bound;
    for (int64_t r = 0; r < rows; ++r) {
      double mean = 0, sizes = 0, squares = 0;
      for (int64_t c = 0; c < cols; ++c) mean += in[r * cols + c];
      mean /= cols;
      for (int64_t c = 0; c < cols; ++c) {
        sizes += std::fabs(in[r * cols + c]);
        squares += std::pow(in[r * cols + c] - mean, 2);
      }
      const double scale = 1 / std::sqrt(squares / cols + eps);
      const double mean_error = Gamma(cols / 16 + 6) * sizes / cols + kUnit * std::fabs(mean);
      const double scale_error =  // relative
          Gamma(cols / 16 + 6) / 2 + 3 * kUnit + std::pow(mean_error * scale, 2);
      for (int64_t c = 0; c < cols; ++c) {
        const double d = std::fabs(in[r * cols + c] - mean);
        bound.push_back(std::fabs(w[c]) * scale *
                            (mean_error + (d + mean_error) * (scale_error + 3 * kUnit)) +
                        2 * kUnit * std::fabs(expected[r * cols + c]));
      }
    }
    ExpectWithin(x, expected, bound, "cols " + std::to_string(cols));
  }
}

TEST_P(RowsTest, SwiGlu) {
  Random random(5);
  for (int64_t cols : kWidths) {
    const int64_t rows = 21;
    std::vector<float> x = random.Normals(rows * 2 * cols, 8);
    x[0] = 100;          // e^-x underflows
    x[1 % cols] = -100;  // and overflows
    std::vector<float> y(rows * cols, NAN), expected = y;
    ops_->SwiGlu(x.data(), rows, cols, y.data());
    reference_->SwiGlu(x.data(), rows, cols, expected.data());
    std::vector<double> bound;
    // The bound: exp 2 ulp, sum, quotient, product, the reference's rounding. 1e-37: an infinite
    // denominator may flush results below the normal range.
    for (float v : expected) bound.push_back(8 * kUnit * std::fabs(v) + 1e-37);
    ExpectWithin(y, expected, bound, "cols " + std::to_string(cols));
  }
}

TEST_P(RowsTest, Patchify) {
  Random random(6);
  const int64_t images = 3, side = 28, patch = 7;
  std::vector<uint8_t> pixels(images * side * side * 3);
  for (uint8_t& p : pixels) p = static_cast<uint8_t>(random.Below(256));
  const float mean[] = {0.48145466f, 0.4578275f, 0.40821073f};
  const float std[] = {0.26862954f, 0.26130258f, 0.27577711f};
  std::vector<float> out(pixels.size()), expected = out;
  ops_->Patchify(pixels.data(), images, side, patch, mean, std, out.data());
  reference_->Patchify(pixels.data(), images, side, patch, mean, std, expected.data());
  ExpectSameBits(out, expected, "patches");
  // One element by hand: image 1, patch (2, 3), channel 2, y 5, x 4.
  const int64_t pixel = ((side + 2 * patch + 5) * side + 3 * patch + 4) * 3 + 2;
  const int64_t element = (16 + 2 * 4 + 3) * 3 * 49 + 2 * 49 + 5 * 7 + 4;
  EXPECT_EQ(out[element], (pixels[pixel] / 255.0f - mean[2]) / std[2]);
}

TEST_P(RowsTest, RopeAndStore) {
  for (int dim : {8, 24, 64, 128}) {
    for (int group : {1, 4}) {
      const int kv_heads = 2, heads = kv_heads * group, rows = 21;
      Random random(dim + group);
      const std::vector<float> cos = random.Normals(40 * dim / 2);
      const std::vector<float> sin = random.Normals(40 * dim / 2);
      std::vector<float> qkv = random.Normals(rows * (heads + 2 * kv_heads) * dim);
      qkv[(heads + kv_heads) * dim] = 1e6f;  // v of the first row saturates
      qkv[(heads + kv_heads) * dim + 1] = -7e4f;
      std::vector<float> expected = qkv;
      const PagedCase shape{.kv_heads = kv_heads, .head_dim = dim, .run_tokens = {{rows}}};
      PagedCache mine(shape, 1, 2), theirs(shape, 1, 2);
      std::vector<KvSlot> slots;
      std::vector<int32_t> positions;
      for (int r = 0; r < rows; ++r) {
        slots.push_back(r == 3 ? KvSlot{kNoPage, 0} : mine.Slot(0, (r * 5) % rows));
        positions.push_back(static_cast<int32_t>(random.Below(40)));
      }
      const RopeTable rope{cos.data(), sin.data()};
      ops_->RopeAndStore(qkv.data(), positions.data(), slots.data(), nullptr, rows, heads, rope,
                         mine.view());
      reference_->RopeAndStore(expected.data(), positions.data(), slots.data(), nullptr, rows,
                               heads, rope, theirs.view());
      ExpectSameBits(std::vector<float>(qkv), expected, "rotated rows");
      for (int t = 0; t < rows; ++t) {
        for (int i = 0; i < kv_heads * dim; ++i) {
          for (bool value : {false, true}) {
            ASSERT_EQ(mine.At(0, t, i / dim, value, i % dim),
                      theirs.At(0, t, i / dim, value, i % dim))
                << "token " << t << " element " << i << " value " << value;
          }
        }
      }
      EXPECT_EQ(HalfToFloat(mine.At(0, 0, 0, true, 0)), 65504);
      EXPECT_EQ(HalfToFloat(mine.At(0, 0, 0, true, 1)), -65504);
    }
  }
}

TEST_P(RowsTest, MemoryIsAlignedAndZeroed) {
  for (int64_t bytes : {0, 1, 1000, 5 << 20}) {
    const Buffer b = ops_->Allocate(bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(b.get()) % 64, 0u);
    std::vector<uint8_t> content(bytes, 1);
    ops_->CopyToHost(content.data(), b.get(), bytes);
    for (int64_t i = 0; i < bytes; ++i) ASSERT_EQ(content[i], 0);
    content.assign(bytes, 1);  // the next one, at the same place perhaps, is zeroed again
    ops_->CopyToDevice(b.get(), content.data(), bytes);
  }
  const char text[] = "bytes";
  char back[sizeof text];
  const Buffer b = ops_->Allocate(sizeof text);
  ops_->CopyToDevice(b.get(), text, sizeof text);
  ops_->CopyToHost(back, b.get(), sizeof text);
  EXPECT_STREQ(back, text);
}

INSTANTIATE_TEST_SUITE_P(Cpu, RowsTest, ::testing::ValuesIn(AllCpuCases()), CaseName);
INSTANTIATE_TEST_SUITE_P(Cuda, RowsTest, ::testing::ValuesIn(AllCudaCases()), CaseName);

}  // namespace
}  // namespace tessera::testing
