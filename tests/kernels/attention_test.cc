// Compares every backend's attention with the reference.
#include <cmath>

#include "base/half.h"
#include "tests/kernels/test_util.h"

namespace tessera::testing {
namespace {

struct PagedProblem {
  PagedCase cache;
  std::vector<int> rows;  // query rows per sequence
  int group;
};

class AttentionTest : public BackendTest {
 protected:
  void Check(const PagedProblem& p, uint64_t seed);
};

void AttentionTest::Check(const PagedProblem& p, uint64_t seed) {
  Ops &ops = *ops_, &reference = *reference_;
  PagedCache cache(p.cache, seed, seed + 1);
  const int dim = p.cache.head_dim, heads = p.cache.kv_heads * p.group;
  std::vector<int32_t> begin = {0};
  for (int n : p.rows) begin.push_back(begin.back() + n);
  Random random(seed + 2);
  const int64_t row_floats = (heads + 2 * p.cache.kv_heads) * dim;
  const std::vector<float> qkv = random.Normals(begin.back() * row_floats, 2);
  std::vector<float> out(begin.back() * heads * dim, NAN), expected = out;
  const auto sequences = static_cast<int64_t>(p.rows.size());
  ops.PagedAttention(qkv.data(), begin.data(), nullptr, sequences, heads, cache.view(), out.data());
  reference.PagedAttention(qkv.data(), begin.data(), nullptr, sequences, heads, cache.view(),
                           expected.data());

  std::vector<double> bound(out.size());
  for (int s = 0; s < sequences; ++s) {
    const int tokens = cache.Tokens(s);
    const AttentionArithmetic arithmetic = ArithmeticOf(GetParam(), dim, p.rows[s], p.group, false);
    for (int r = begin[s]; r < begin[s + 1]; ++r) {
      for (int h = 0; h < heads; ++h) {
        AttentionSizes sizes{.tokens = tokens, .low = INFINITY, .high = -INFINITY};
        for (int t = 0; t < tokens - (begin[s + 1] - 1 - r); ++t) {
          double dot = 0, size = 0;
          for (int i = 0; i < dim; ++i) {
            const double product = double{qkv[r * row_floats + h * dim + i]} *
                                   HalfToFloat(cache.At(s, t, h / p.group, false, i));
            dot += product;
            size += std::fabs(product);
            sizes.value = std::max<double>(
                sizes.value, std::fabs(HalfToFloat(cache.At(s, t, h / p.group, true, i))));
          }
          const double scale = 1 / std::sqrt(dim);
          sizes.scores = std::max(sizes.scores, size * scale);
          sizes.low = std::min(sizes.low, dot * scale);
          sizes.high = std::max(sizes.high, dot * scale);
        }
        std::fill_n(bound.begin() + (int64_t{r} * heads + h) * dim, dim,
                    AttentionBound(arithmetic, sizes));
      }
    }
  }
  ExpectWithin(out, expected, bound,
               "head_dim " + std::to_string(dim) + " group " + std::to_string(p.group));
}

TEST_P(AttentionTest, HeadDims) {
  for (int dim : {8, 16, 24, 40, 64, 72, 128, 256}) {
    Check({.cache = {.kv_heads = 2, .head_dim = dim, .run_tokens = {{1}, {37}, {64}}},
           .rows = {1, 5, 1},
           .group = 1},
          dim);
  }
}

TEST_P(AttentionTest, GroupedQueries) {
  for (int group = 1; group <= 8; ++group) {
    Check({.cache = {.kv_heads = 2, .head_dim = 64, .run_tokens = {{50}, {33}, {16}}},
           .rows = {1, 7, 16},
           .group = group},
          group);
  }
  // One KV head serves more query heads than a block holds.
  Check({.cache = {.kv_heads = 1, .head_dim = 128, .run_tokens = {{40}}}, .rows = {3}, .group = 20},
        99);
}

TEST_P(AttentionTest, WholePromptFromFirstToken) {
  for (int n : {1, 15, 16, 17, 31, 33, 100}) {
    Check({.cache = {.kv_heads = 1, .head_dim = 32, .run_tokens = {{n}}}, .rows = {n}, .group = 2},
          n);
  }
}

TEST_P(AttentionTest, PromptsLongerThanATile) {
  for (int dim : {64, 128}) {
    Check({.cache = {.kv_heads = 2, .head_dim = dim, .run_tokens = {{150}, {70, 131}, {20}, {64}}},
           .rows = {150, 65, 1, 64},
           .group = 2},
          dim);
  }
}

TEST_P(AttentionTest, PromptsOfManyTiles) {
  // More tiles than a backend keeps at a time; blocks of queries whose last rows see more tiles
  // than their first; and part-filled blocks.
  for (int dim : {64, 128}) {
    Check({.cache = {.kv_heads = 1, .head_dim = dim, .run_tokens = {{450}, {64, 300}}},
           .rows = {140, 70},
           .group = 1},
          dim + 1);
  }
  // More blocks of queries than a device runs at a time.
  Check({.cache = {.kv_heads = 34, .head_dim = 64, .run_tokens = {{200}, {197}, {70, 80}, {192}}},
         .rows = {2, 3, 2, 2},
         .group = 1},
        11);
}

TEST_P(AttentionTest, SeveralRunsWithPartFilledPages) {
  Check({.cache = {.kv_heads = 2, .head_dim = 64, .run_tokens = {{5, 17, 30}, {16, 1}, {3, 48}}},
         .rows = {9, 1, 20},
         .group = 2},
        5);
}

TEST_P(AttentionTest, SequencesWithoutRowsAreSkipped) {
  Check({.cache = {.kv_heads = 1, .head_dim = 64, .run_tokens = {{20}, {20}, {20}}},
         .rows = {0, 3, 0},
         .group = 1},
        5);
}

TEST_P(AttentionTest, LongDecodes) {
  // Few sequences with many tokens: a backend that splits a sequence must merge its parts.
  Check({.cache = {.kv_heads = 2,
                   .head_dim = 128,
                   .run_tokens = {{900}, {3}, {64}, {65}, {33, 700, 1}, {129}}},
         .rows = {1, 1, 1, 1, 1, 2},
         .group = 2},
        7);
}

TEST_P(AttentionTest, LargeScores) {
  // One key dominates by thousands: the others' weights underflow and nothing becomes NaN.
  PagedCache cache({.kv_heads = 1, .head_dim = 16, .run_tokens = {{40}}}, 1, 2);
  for (int i = 0; i < 16; ++i) cache.At(0, 23, 0, false, i) = FloatToHalf(60000);
  std::vector<float> qkv(3 * 16, 100.0f), out(16);
  const int32_t begin[] = {0, 1};
  ops_->PagedAttention(qkv.data(), begin, nullptr, 1, 1, cache.view(), out.data());
  for (int i = 0; i < 16; ++i) EXPECT_EQ(out[i], HalfToFloat(cache.At(0, 23, 0, true, i)));
}

TEST_P(AttentionTest, Vit) {
  for (int dim : {8, 64, 72}) {
    for (int tokens : {1, 16, 17, 65, 128, 197, 577}) {
      const int images = 2, heads = 3;
      Random random(tokens);
      const std::vector<float> qkv = random.Normals(images * tokens * 3 * heads * dim, 2);
      std::vector<float> out(images * tokens * heads * dim, NAN), expected = out;
      ops_->VitAttention(qkv.data(), images, tokens, heads, dim, out.data());
      reference_->VitAttention(qkv.data(), images, tokens, heads, dim, expected.data());
      float max = 0;
      for (float v : qkv) max = std::max(max, std::fabs(v));
      const double scores = double{max} * max * std::sqrt(dim);  // |q . k| / sqrt(dim) at most
      // On tensor cores several rows share a tile, and K and V are rounded to half as q is.
      const double e =
          AttentionBound(ArithmeticOf(GetParam(), dim, /*rows=*/2, 1, true), {.tokens = tokens,
                                                                              .scores = scores,
                                                                              .low = -scores,
                                                                              .high = scores,
                                                                              .value = max,
                                                                              .low_bits = true});
      ExpectWithin(out, expected, std::vector<double>(out.size(), e),
                   "vit dim " + std::to_string(dim) + " tokens " + std::to_string(tokens));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, AttentionTest, ::testing::ValuesIn(AllCpuCases()), CaseName);
INSTANTIATE_TEST_SUITE_P(Cuda, AttentionTest, ::testing::ValuesIn(AllCudaCases()), CaseName);

}  // namespace
}  // namespace tessera::testing
