// Compares the statistics for policies (low-pass residuals: low_pass_test.cc) with the reference on
// every backend. On the CPU they must have the same bits on every instruction set and for every
// division of a prompt into chunks.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "base/half.h"
#include "tests/kernels/test_util.h"

namespace tessera::testing {
namespace {

class StatisticsTest : public BackendTest {
 protected:
  std::unique_ptr<Ops> scalar_ = MakeCpu("scalar", 1);
};

TEST_P(StatisticsTest, RowPeaksAreTheLargestAndTheMedian) {
  Random random(1);
  const std::vector<int32_t> rows = {4, 0, 2, 2};
  for (const int64_t cols : {1, 2, 15, 64, 257, 1000}) {
    std::vector<float> x = random.Normals(5 * cols);
    for (int64_t c = 0; c < cols; c += 3) x[2 * cols + c] = -x[2 * cols];  // ties
    x[4 * cols + cols / 2] = -3000;                                        // and a massive one
    for (const int64_t top :
         {int64_t{1}, std::min<int64_t>(5, cols), std::min<int64_t>(64, cols)}) {
      std::vector<float> peaks(rows.size() * top), medians(rows.size()), alone(peaks);
      ops_->RowPeaks(x.data(), rows.data(), 4, cols, top, peaks.data(), medians.data());
      ops_->RowPeaks(x.data(), rows.data(), 4, cols, top, alone.data(), nullptr);
      ExpectSameBits(alone, peaks, "without medians");
      for (size_t i = 0; i < rows.size(); ++i) {
        std::vector<float> sizes;
        for (int64_t c = 0; c < cols; ++c) sizes.push_back(std::fabs(x[rows[i] * cols + c]));
        std::sort(sizes.begin(), sizes.end());
        for (int64_t t = 0; t < top; ++t) ASSERT_EQ(peaks[i * top + t], sizes[cols - 1 - t]);
        ASSERT_EQ(medians[i], sizes[(cols - 1) / 2]) << cols;
      }
      ASSERT_EQ(peaks[0], 3000);
    }
  }
}

TEST_P(StatisticsTest, AttentionColumnsAreSumsOfWeights) {
  Random random(3);
  constexpr int kHeads = 6;
  // Two sequences, the second in two runs; jobs name some rows of both.
  PagedCache cache({.kv_heads = 3, .head_dim = 40, .run_tokens = {{21}, {33, 90}}}, 4, 5);
  const std::vector<int32_t> begin = {0, 2, 22};
  const std::vector<float> qkv = random.Normals(22 * (kHeads + 6) * 40, 2);
  const std::vector<ColumnJob> jobs = {{1, 5, 17, 100}, {0, 1, 1, 0}};
  const auto run = [&](Ops& ops, const std::vector<ColumnJob>& work) {
    std::vector<float> columns(230, 0.5f);
    ops.AttentionColumns(qkv.data(), begin.data(), work.data(), static_cast<int64_t>(work.size()),
                         kHeads, cache.view(), columns.data());
    return columns;
  };
  const std::vector<float> got = run(*ops_, jobs), expected = run(*reference_, jobs);
  std::vector<double> bounds(230);
  for (const ColumnJob& job : jobs) {
    double largest = 0;  // sum of |q||k| over the head, a bound of every score
    for (int row = job.first_row; row < job.first_row + job.rows; ++row) {
      for (int h = 0; h < kHeads; ++h) {
        for (int t = 0; t < cache.Tokens(job.sequence); ++t) {
          double size = 0;
          for (int i = 0; i < 40; ++i) {
            size += std::fabs(qkv[(int64_t{row} * (kHeads + 6) + h) * 40 + i] *
                              HalfToFloat(cache.At(job.sequence, t, h / 2, false, i)));
          }
          largest = std::max(largest, size / std::sqrt(40.0));
        }
      }
    }
    // The bound: the dot product, its scale and the difference from the maximum; exp within 2 ulp
    // and the sum of up to 123 weights; then one rounding per row and head.
    const double weight = std::expm1(2 * (Gamma(48) * largest + 2 * kUnit * largest)) + Gamma(130);
    for (int t = 0; t < cache.Tokens(job.sequence); ++t) {
      bounds[job.columns + t] =
          (weight + 2 * Gamma(job.rows * kHeads + 2)) * (expected[job.columns + t] + 0.5);
    }
  }
  ExpectWithin(got, expected, bounds, "columns");
  double mass = 0;
  for (int t = 0; t < 123; ++t) mass += got[100 + t] - 0.5;
  EXPECT_NEAR(mass, 17 * kHeads, 17 * kHeads * 1e-4);
  EXPECT_EQ(got[21], 0.5f);  // nothing beyond a job's tokens
  if (GetParam().cuda()) return;
  ExpectSameBits(got, run(*scalar_, jobs), "another instruction set");
  // Row by row, as the chunks of a prompt would add them.
  std::vector<ColumnJob> rows = {jobs[1]};
  for (int i = 0; i < 17; ++i) rows.push_back({1, 5 + i, 1, 100});
  ExpectSameBits(got, run(*ops_, rows), "another cut");
}

TEST_P(StatisticsTest, TokensRankByTheirDeviation) {
  Random random(5);
  for (const auto& [layers, tokens] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 1}, {3, 2}, {5, 257}, {2, 1030}, {256, 3}, {33, 3000}}) {
    SCOPED_TRACE(absl::StrCat(layers, " layers of ", tokens));
    std::vector<float> residuals = random.Normals(layers * tokens * 4);
    for (int64_t i = 0; i < std::ssize(residuals); i += 24) {  // ties, zeros of both signs
      residuals[i] = std::round(residuals[i]) * 0.0f;
      residuals[i + 1] = std::round(residuals[i + 1]);
    }
    std::vector<uint8_t> vision(tokens);
    for (int64_t t = 0; t < tokens; ++t) vision[t] = t % 7 < 3 ? 0 : t % 7;
    if (tokens == 257) {  // like a model whose numbers overflow, in text only
      const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
      for (int i = 0; i < 4; ++i) residuals[28 * i] = bad[i];
      residuals[(2 * tokens + 14) * 4 + 1] = NAN;
    }
    std::vector<int32_t> ranks(layers * tokens);
    std::vector<double> sums(layers * 8);
    ops_->RankTokens(residuals.data(), vision.data(), layers, tokens, ranks.data(), sums.data());
    for (int64_t layer = 0; layer < layers; ++layer) {
      const float* own = &residuals[layer * tokens * 4];
      const auto score = [&](int64_t t) { return own[4 * t] + own[4 * t + 1]; };
      std::vector<int64_t> order(tokens);
      std::iota(order.begin(), order.end(), 0);
      std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
        const auto key = [&](int64_t t) {
          const bool number = !std::isnan(score(t));
          return std::tuple(number, number ? -score(t) : 0, t);
        };
        return key(a) < key(b);
      });
      for (int64_t i = 0; i < tokens; ++i) ASSERT_EQ(ranks[layer * tokens + order[i]], i);
      for (int i = 0; i < 8; ++i) {
        double sum = 0, size = 0;
        for (int64_t t = 0; t < tokens; ++t) {
          if ((vision[t] != 0) != (i >= 4)) continue;
          sum += own[4 * t + i % 4];
          size += std::fabs(own[4 * t + i % 4]);
        }
        const double got = sums[layer * 8 + i];
        if (std::isfinite(sum)) {
          ASSERT_NEAR(got, sum, size * static_cast<double>(tokens) * 0x1p-52) << i;
        } else {
          ASSERT_FALSE(std::isfinite(got)) << i;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, StatisticsTest, ::testing::ValuesIn(AllCpuCases()), CaseName);
INSTANTIATE_TEST_SUITE_P(Cuda, StatisticsTest, ::testing::ValuesIn(AllCudaCases()), CaseName);

}  // namespace
}  // namespace tessera::testing
