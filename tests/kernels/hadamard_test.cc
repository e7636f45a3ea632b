// Tests the Walsh-Hadamard transform: its matrix, its inverse, and that it leaves attention
// unchanged.
#include <bit>
#include <cmath>

#include "base/half.h"
#include "kernels/layout/quantize.h"
#include "kernels/reference/reference_cache.h"
#include "tests/kernels/mixed_cache.h"

namespace tessera::testing {
namespace {

double Entry(int i, int j, int n) {
  return (std::popcount(static_cast<unsigned>(i & j)) % 2 ? -1 : 1) / std::sqrt(n);
}

double Norm1(const std::vector<float>& x) {
  double sum = 0;
  for (float v : x) sum += std::fabs(v);
  return sum;
}

TEST(HadamardTest, IsSylvestersMatrixAndItsOwnInverse) {
  Random random(1);
  for (int n = 1; n <= 256; n *= 2) {
    const std::vector<float> x = random.Normals(n, 3);
    std::vector<float> once = x, expected(n);
    ReferenceHadamard(once.data(), n);
    for (int i = 0; i < n; ++i) {
      double sum = 0;
      for (int j = 0; j < n; ++j) sum += Entry(i, j, n) * x[j];
      expected[i] = static_cast<float>(sum);
    }
    // The bound: log2(n) additions, the rounded factor and the product, and the rounding of
    // `expected`.
    const int roundings = std::countr_zero(static_cast<unsigned>(n)) + 3;
    const double bound = Gamma(roundings) * Norm1(x) / std::sqrt(n);
    ExpectWithin(once, expected, std::vector<double>(n, bound), "H x");
    std::vector<float> twice = once;
    ReferenceHadamard(twice.data(), n);
    // The first pass's error passes through H, which keeps the 2-norm.
    const double again = bound * std::sqrt(n) + Gamma(roundings) * Norm1(once) / std::sqrt(n);
    ExpectWithin(twice, x, std::vector<double>(n, again), "H H x");
  }
  EXPECT_DEATH(
      {
        float x[24] = {};
        ReferenceHadamard(x, 24);
      },
      "check failed");
}

class TransformTest : public BackendTest {};

// Runs RopeAndStore for `rows` tokens into the pool of a cache.
void Store(Ops& ops, MixedCache& cache, std::vector<float>& qkv, const uint8_t* transform, int rows,
           int heads) {
  const int dim = cache.geometry().head_dim;
  Random random(3);
  std::vector<float> cos, sin;
  for (int i = 0; i < rows * dim / 2; ++i) {
    const float angle = random.Normal();
    cos.push_back(std::cos(angle));
    sin.push_back(std::sin(angle));
  }
  std::vector<int32_t> positions;
  std::vector<KvSlot> slots;
  for (int r = 0; r < rows; ++r) {
    positions.push_back(r);
    slots.push_back(cache.PoolSlot(r));
  }
  slots[1].page = kNoPage;
  ops.RopeAndStore(qkv.data(), positions.data(), slots.data(), transform, rows, heads,
                   {cos.data(), sin.data()}, cache.view());
}

TEST_P(TransformTest, StoresTheReferencesBitsAndLeavesOtherRowsAlone) {
  for (int dim : {8, 16, 32, 64, 128, 256}) {
    const int heads = 6, rows = 20;
    const MixedCase shape{.kv_heads = 2, .head_dim = dim, .runs = {}};
    const int64_t cols = (heads + 4) * dim;
    const std::vector<float> qkv = Random(dim).Normals(rows * cols, 2);
    std::vector<uint8_t> transform;
    for (int r = 0; r < rows; ++r) transform.push_back(r % 3 != 0);
    MixedCache mine(*ops_, shape, {}, rows, 1, 2), theirs(*ops_, shape, {}, rows, 1, 2),
        plain(*ops_, shape, {}, rows, 1, 2);
    std::vector<float> a = qkv, b = qkv, c = qkv;
    Store(*ops_, mine, a, transform.data(), rows, heads);
    Store(*reference_, theirs, b, transform.data(), rows, heads);
    Store(*ops_, plain, c, nullptr, rows, heads);
    ExpectSameBits(a, b, "dim " + std::to_string(dim));
    EXPECT_EQ(mine.Bytes(), theirs.Bytes());
    EXPECT_NE(mine.Bytes(), plain.Bytes());
    for (int r = 0; r < rows; ++r) {
      if (transform[r]) {  // each head once, for any group
        for (int h = 0; h < heads + 4; ++h) ReferenceHadamard(c.data() + r * cols + h * dim, dim);
      }
    }
    ExpectSameBits(a, c, "H times the plain rows");
  }
}

TEST_P(TransformTest, LargeValuesSaturate) {
  const int dim = 128;
  MixedCache cache(*ops_, {.kv_heads = 1, .head_dim = dim, .runs = {}}, {}, 2, 1, 2);
  std::vector<float> qkv(2 * 3 * dim, 60000);  // all goes to element 0: sqrt(128) x 60000
  const uint8_t transform[] = {1, 1};
  Store(*ops_, cache, qkv, transform, 2, 1);
  const uint8_t* page = cache.arena() + cache.PoolSlot(0).page * kPageUnitBytes;
  EXPECT_EQ(PageElement(page, Format::kRaw16, dim, 0, true, 0, 0), 65504);
  EXPECT_EQ(PageElement(page, Format::kRaw16, dim, 0, true, 0, 1), 0);
}

TEST_P(TransformTest, AttentionTransformsItsOutputOnce) {
  for (int dim : {8, 64, 128}) {
    const int heads = 4;
    const MixedCase shape{
        .kv_heads = 2,
        .head_dim = dim,
        .runs = {{{Format::kToken4, 0, 37}, {Format::kRaw16, 37, 9}}, {{Format::kRaw16, 5, 20}}}};
    MixedCache cache(*ops_, shape, {}, 48, 1, 2);
    const std::vector<int32_t> begin = {0, 5, 6};
    const std::vector<float> qkv = Random(4).Normals(6 * (heads + 4) * dim);
    std::vector<float> plain(6 * heads * dim), mixed = plain;
    ops_->PagedAttention(qkv.data(), begin.data(), nullptr, 2, heads, cache.view(), plain.data());
    const uint8_t transformed[] = {1, 0};
    ops_->PagedAttention(qkv.data(), begin.data(), transformed, 2, heads, cache.view(),
                         mixed.data());
    for (int i = 0; i < 5 * heads; ++i) ReferenceHadamard(plain.data() + i * dim, dim);
    ExpectSameBits(mixed, plain, "dim " + std::to_string(dim));
  }
}

// End to end with GQA: rotated rows, stored and attended, give the same as plain rows except for
// the rounding of the stored halves.
TEST_P(TransformTest, AttentionIsAsIfNothingHadBeen) {
  const int dim = 64, heads = 6, kv_heads = 2, rows = 24;
  const MixedCase shape{.kv_heads = kv_heads, .head_dim = dim, .runs = {}};
  const int64_t cols = (heads + 2 * kv_heads) * dim;
  const std::vector<float> qkv = Random(7).Normals(rows * cols);
  std::vector<std::vector<float>> outs;
  std::vector<uint8_t> one(rows, 1);
  double q_norm = 0, k_norm = 0, v_norm = 0;
  for (bool rotate : {false, true}) {
    MixedCache cache(*ops_, shape, {}, rows, 1, 2);
    std::vector<float> x = qkv;
    Store(*ops_, cache, x, rotate ? one.data() : nullptr, rows, heads);
    // Token 1 was not stored: attends over the others, from slot 2 on, as one page-aligned run.
    const PageId pages[] = {cache.PoolSlot(16).page};
    const KvRun runs[] = {{Format::kRaw16, 0, rows - 16}};
    const int32_t run_begin[] = {0, 1}, begin[] = {0, rows - 16};
    const uint8_t transformed[] = {1};
    outs.emplace_back((rows - 16) * heads * dim);
    ops_->PagedAttention(x.data() + 16 * cols, begin, rotate ? transformed : nullptr, 1, heads,
                         {cache.arena(), cache.geometry(), pages, runs, run_begin},
                         outs.back().data());
    for (int r = 16; r < rows; ++r) {
      for (int h = 0; h < heads + 2 * kv_heads; ++h) {
        double squares = 0;
        for (int i = 0; i < dim; ++i) squares += std::pow(x[r * cols + h * dim + i], 2);
        double& norm = h < heads ? q_norm : h < heads + kv_heads ? k_norm : v_norm;
        norm = std::max(norm, std::sqrt(squares));
      }
    }
  }
  // Each stored row has a relative error of 2^-11, in either run. float's own errors are far below:
  // 2^-20 covers log2(64) + 64 / 16 + ... roundings. On tensor cores q and the weights are rounded
  // too.
  const bool halves =
      ArithmeticOf(GetParam(), dim, rows - 16, heads / kv_heads, false).tensor_cores;
  const double stored = 2 * (0x1p-11 + 0x1p-20 + (halves ? 0x1p-11 : 0));
  const double score = q_norm * k_norm * stored / std::sqrt(dim);
  const double bound = v_norm * (stored + 2 * std::expm1(2 * score));
  ExpectWithin(outs[1], outs[0], std::vector<double>(outs[0].size(), bound), "rotated");
}

using TransformDeathTest = TransformTest;

TEST_P(TransformDeathTest, HeadDimMustBeAPowerOfTwo) {
  MixedCache cache(*ops_, {.kv_heads = 1, .head_dim = 24, .runs = {{{Format::kRaw16, 0, 4}}}}, {},
                   4, 1, 2);
  std::vector<float> qkv(4 * 72), out(24);
  const uint8_t transform[] = {1, 1, 1, 1};
  const int32_t begin[] = {0, 1};
  EXPECT_DEATH(Store(*ops_, cache, qkv, transform, 4, 1), "check failed");
  EXPECT_DEATH(ops_->PagedAttention(qkv.data(), begin, transform, 1, 1, cache.view(), out.data()),
               "check failed");
}

INSTANTIATE_TEST_SUITE_P(Cpu, TransformTest, ::testing::ValuesIn(AllCpuCases()), CaseName);
INSTANTIATE_TEST_SUITE_P(Cuda, TransformTest, ::testing::ValuesIn(AllCudaCases()), CaseName);
INSTANTIATE_TEST_SUITE_P(Cpu, TransformDeathTest, ::testing::Values(BackendCase{"avx2", 1}),
                         CaseName);

}  // namespace
}  // namespace tessera::testing
