// What policies measure: on every backend against the reference, the low-pass residuals also
// against a plain DCT, and on the CPU the same bits on every instruction set and for every cut of a
// prompt into chunks.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "kernels/half.h"
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

// Layers of RAW16 pages in any order, filled with tokens.
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
          // Smooth, with noise that some tokens have more of; K larger than V.
          const double smooth =
              std::sin(static_cast<double>(t) * 0.01 * static_cast<double>(i % 7));
          const float noise = random.Normal() * (t % 13 == layer ? 3.0f : 0.3f);
          At(layer, t, i) = FloatToHalf((static_cast<float>(smooth) + noise) * (i % 2 ? 1.f : 4.f));
        }
      }
    }
  }
  const uint8_t* arena() const { return memory_[0].bytes; }
  const PageId* pages() const { return pages_.data(); }
  int64_t layer_pages() const { return pages_of_layer_; }
  int64_t Row() const { return int64_t{2} * geometry_.kv_heads * geometry_.head_dim; }
  // Channel i of all: K and V of a head beside each other.
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

// What ops.h states, from the definition of the DCT; and how far a float computation may be off.
struct Expected {
  std::vector<float> values;  // [layers, tokens, 4]
  std::vector<double> bounds;
};
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
  // 6.7 u each and 4 u for the product (Higham, Accuracy and Stability, theorem 24.2) on a pair of
  // even extensions (norm: twice the larger of two channels), through a spectrum below 2. Direct:
  // rows of a projector have norm 1 at most.
  const double levels = std::ceil(std::log2(3 * n));
  const double share =
      direct ? Gamma(c.tokens + 4) : 2 * (2 * levels * 6.7 + 4) * kUnit * 2 / (1 - 1e-4);
  for (int layer = 0; layer < c.geometry.layers; ++layer) {
    std::vector<double> sums(c.tokens * 4), errors(c.tokens * 2);
    double norm = 0;  // the largest of a channel
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
    for (int64_t t = 0; t < c.tokens; ++t) {
      for (int i = 0; i < 4; ++i) {
        out.values.push_back(static_cast<float>(sums[t * 4 + i]));
        const double error = i < 2 ? errors[t * 2 + i] : 0;
        out.bounds.push_back(error + Gamma(layers.Row() + 8) * (sums[t * 4 + i] + error));
      }
    }
  }
  return out;
}

TEST_P(StatisticsTest, LowPassResidualsAreThoseOfAPlainDct) {
  const LowPassCase cases[] = {
      {{2, 2, 64}, 300, 0, 300, 61},     // a composite number of tokens
      {{1, 1, 128}, 211, 0, 211, 43},    // a prime one
      {{1, 3, 40}, 150, 17, 101, 1},     // a segment; the mean alone; a head that fills no group
      {{2, 1, 32}, 90, 80, 10, 10},      // all coefficients: nothing is left
      {{1, 2, 16}, 16, 3, 1, 1},         // one token
      {{1, 1, 64}, 1030, 0, 1024, 205},  // a power of two
  };
  for (const LowPassCase& c : cases) {
    SCOPED_TRACE(c.tokens);
    Layers layers(c.geometry, c.stored, 7 + c.tokens);
    const auto run = [&](Ops& ops) {
      std::vector<float> out(c.geometry.layers * c.tokens * 4, NAN);
      ops.LowPassResiduals(layers.arena(), c.geometry, layers.pages(), layers.layer_pages(),
                           c.first, c.tokens, c.kept, out.data());
      return out;
    };
    const std::vector<float> got = run(*ops_);
    const Expected expected = PlainDct(layers, c, GetParam().cuda());
    ExpectWithin(got, expected.values, expected.bounds, "plain DCT");
    std::vector<double> rounding;
    for (float v : expected.values) rounding.push_back(kUnit * v + 1e-12 * std::fabs(v) + 1e-20);
    ExpectWithin(run(*reference_), expected.values, rounding, "the reference");
    if (!GetParam().cuda()) ExpectSameBits(got, run(*scalar_), "another instruction set");
  }
}

TEST_P(StatisticsTest, AttentionColumnsAreSumsOfWeights) {
  Random random(3);
  constexpr int kHeads = 6;
  // Two sequences, the second in two runs; rows of both, of which jobs want some.
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
    // The dot product, its scale and the difference from the maximum; exp within 2 ulp and the sum
    // of up to 123 weights; then one rounding a row and head.
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
  // Row by row, as chunks of a prompt would bring them.
  std::vector<ColumnJob> rows = {jobs[1]};
  for (int i = 0; i < 17; ++i) rows.push_back({1, 5 + i, 1, 100});
  ExpectSameBits(got, run(*ops_, rows), "another cut");
}

INSTANTIATE_TEST_SUITE_P(Cpu, StatisticsTest, ::testing::ValuesIn(AllCpuCases()), CaseName);
INSTANTIATE_TEST_SUITE_P(Cuda, StatisticsTest, ::testing::ValuesIn(AllCudaCases()), CaseName);

}  // namespace
}  // namespace tessera::testing
