// Compares CalibQuant (arXiv 2502.14882) with a model in double, written from its text: ranges per
// channel over an image, shrunk; scales folded into the query and the output; logits mapped in two
// phases.
#include <algorithm>
#include <cmath>

#include "kernels/layout/quantize.h"
#include "tests/kernels/mixed_cache.h"

namespace tessera::testing {
namespace {

constexpr LogitMap kPublished = {.raise = 0, .lower = 3};
constexpr int kPool = 224;

// One image of a MixedCache: codes, and scales and zero points per channel, read from the bytes.
struct Image {
  std::vector<int> codes;          // [tokens, dim]
  std::vector<double> scale, low;  // [dim]
};
Image ReadImage(const MixedCache& cache, const KvRun& run, int head, bool value) {
  const int dim = cache.geometry().head_dim, bits = CodecOf(run.format, value).bits;
  const auto page = [&](PageId id) { return cache.view().arena + id * kPageUnitBytes; };
  Image image;
  // A header has per head the scales of K, its offsets, then those of V.
  const uint8_t* meta = page(run.header) + (head * 2 + (value ? 1 : 0)) * 4 * dim;
  for (int i = 0; i < dim; ++i) {
    image.scale.push_back(HalfToFloat(LoadHalfBits(meta + 2 * i)));
    image.low.push_back(HalfToFloat(LoadHalfBits(meta + 2 * dim + 2 * i)));
  }
  // A page has per head the codes of 32 tokens' K, then V, the first channel in the lowest bits.
  for (int t = 0; t < run.tokens; ++t) {
    const uint8_t* codes = page(cache.view().pages[run.first_page + t / 32]) +
                           (head * 2 + (value ? 1 : 0)) * 32 * dim * bits / 8 +
                           t % 32 * dim * bits / 8;
    for (int i = 0; i < dim; ++i) {
      image.codes.push_back(codes[i * bits / 8] >> i * bits % 8 & ((1 << bits) - 1));
    }
  }
  return image;
}

// Checks steps 2 to 4: the paper's scales, zero points and codes, from the 16-bit tokens.
TEST(CalibQuantTest, CodesAreThePapers) {
  const auto ops = MakeCpu("scalar", 1);
  for (const auto& [bits, format] :
       {std::pair{4, Format::kSegment4}, {2, Format::kSegment2}, {1, Format::kSegment1}}) {
    const QuantRule rule = {.clip_k = bits == 1 ? 0.5f : 1, .clip_v = bits == 1 ? 0.3f : 1};
    const int dim = 24, tokens = 200;
    const MixedCache cache(*ops, {.kv_heads = 2, .head_dim = dim, .runs = {{{format, 7, tokens}}}},
                           rule, kPool, 1, 2);
    for (int head : {0, 1}) {
      for (bool value : {false, true}) {
        const Image image = ReadImage(cache, cache.view().runs[0], head, value);
        for (int i = 0; i < dim; ++i) {
          std::vector<double> x;
          for (int t = 0; t < tokens; ++t) {
            const KvSlot from = cache.PoolSlot(7 + t);
            x.push_back(PageElement(cache.view().arena + from.page * kPageUnitBytes, Format::kRaw16,
                                    dim, head, value, static_cast<int>(from.slot), i));
          }
          const auto [min, max] = std::minmax_element(x.begin(), x.end());
          const double beta = value ? rule.clip_v : rule.clip_k;
          const double s = beta * (*max - *min) / ((1 << bits) - 1), zp = -beta * *min / s;
          EXPECT_NEAR(image.scale[i] / s, 1, 0x1p-11 + 4 * kUnit);  // stored in half
          EXPECT_NEAR(image.low[i] / (beta * *min), 1, 0x1p-11 + 4 * kUnit);
          int differ = 0;
          for (int t = 0; t < tokens; ++t) {
            const double exact = std::clamp<double>(x[t] / s + zp, 0, (1 << bits) - 1);
            // The code is on the stored grid, which rounding to half has moved by less than this.
            const double moved = (std::fabs(x[t]) / s + std::fabs(zp)) * (0x1p-10 + 8 * kUnit);
            EXPECT_LE(std::fabs(image.codes[t * dim + i] - exact), 0.5 + moved);
            differ += image.codes[t * dim + i] != std::lrint(exact);
          }
          EXPECT_LE(differ, tokens / 20);  // except the few this near to the middle
        }
      }
    }
  }
}

// Computes steps 5 to 7 for one query row: q folded with s, codes alone, the map over all images,
// softmax over all tokens, V folded likewise.
std::vector<double> Model(const MixedCache& cache, const float* q, int heads, const LogitMap& map) {
  const int dim = cache.geometry().head_dim, group = heads / cache.geometry().kv_heads;
  const int runs = cache.view().run_begin[1];
  std::vector<double> out;
  for (int h = 0; h < heads; ++h, q += dim) {
    std::vector<std::vector<double>> logits(runs);
    std::vector<Image> keys(runs), values(runs);
    double low = INFINITY, high = -INFINITY;
    int first = 0;
    for (int r = 0; r < runs; ++r) {
      const KvRun& run = cache.view().runs[r];
      const bool image = run.format != Format::kRaw16;
      if (image) {
        keys[r] = ReadImage(cache, run, h / group, false);
        values[r] = ReadImage(cache, run, h / group, true);
      }
      double constant = 0;
      for (int i = 0; image && i < dim; ++i) constant += q[i] * keys[r].low[i];
      for (int t = 0; t < run.tokens; ++t) {
        double u = constant;
        for (int i = 0; i < dim; ++i) {
          u += image ? q[i] * keys[r].scale[i] * keys[r].codes[t * dim + i]
                     : double{q[i]} * cache.At(0, first + t, h / group, false, i).x;
        }
        logits[r].push_back(u / std::sqrt(dim));
        if (!image) continue;
        low = std::min(low, logits[r].back());
        high = std::max(high, logits[r].back());
      }
      first += run.tokens;
    }
    const double slope = std::max(0.0, 1 - (double{map.raise} + map.lower) / (high - low));
    double sum = 0;
    std::vector<double> total(dim);
    first = 0;
    for (int r = 0; r < runs; ++r) {
      const bool image = cache.view().runs[r].format != Format::kRaw16;
      double weights = 0;
      std::vector<double> of_codes(dim);
      for (size_t t = 0; t < logits[r].size(); ++t) {
        const double u = logits[r][t];
        const double p = std::exp(image ? low + map.raise + slope * (u - low) : u);
        weights += p;
        for (int i = 0; i < dim; ++i) {
          of_codes[i] +=
              p * (image ? values[r].codes[t * dim + i]
                         : double{cache.At(0, first + static_cast<int>(t), h / group, true, i).x});
        }
      }
      for (int i = 0; i < dim; ++i) {
        total[i] +=
            image ? values[r].scale[i] * of_codes[i] + values[r].low[i] * weights : of_codes[i];
      }
      sum += weights;
      first += cache.view().runs[r].tokens;
    }
    for (int i = 0; i < dim; ++i) out.push_back(total[i] / sum);
  }
  return out;
}

class CalibQuantAttentionTest : public BackendTest {
 protected:
  std::vector<float> Attend(Ops& ops, const MixedCache& cache, const std::vector<float>& qkv,
                            int heads, int rows = 1) {
    std::vector<float> out(int64_t{rows} * heads * cache.geometry().head_dim, NAN);
    const int32_t begin[] = {0, rows};
    ops.PagedAttention(qkv.data(), begin, nullptr, 1, heads, cache.view(), out.data());
    return out;
  }
};

TEST_P(CalibQuantAttentionTest, EqualsTheModelInDouble) {
  for (Format format : {Format::kSegment1, Format::kSegment2, Format::kSegment4}) {
    for (const LogitMap& map :
         {LogitMap(), kPublished, LogitMap{.raise = 0.5f, .lower = 1}, LogitMap{.raise = 90}}) {
      for (int dim : {24, 128}) {
        if (dim == 128 && format != Format::kSegment1) continue;
        // Text, two images of which one does not fill its pages, text, and an image of one token.
        const MixedCase shape = {.kv_heads = 2,
                                 .head_dim = dim,
                                 .runs = {{{format, 5, 64, map},
                                           {format, 70, 50, map},
                                           {format, 160, 1, map},
                                           {Format::kRaw16, 170, 37}}}};
        const QuantRule rule = {.clip_k = 0.5f, .clip_v = 0.3f};
        const MixedCache cache(*ops_, shape, rule, kPool, 1, 2);
        const int heads = 6;
        const std::vector<float> qkv = Random(5).Normals((heads + 4) * dim, 2);
        const std::vector<double> model = Model(cache, qkv.data(), heads, map);
        std::vector<float> expected(model.begin(), model.end());
        std::vector<double> bounds = MixedBounds(GetParam(), cache, qkv, heads, {0, 1});
        for (size_t i = 0; i < bounds.size(); ++i) bounds[i] += kUnit * std::fabs(model[i]);
        const std::string what = std::string(FormatName(format)) + " dim " + std::to_string(dim) +
                                 " lower " + std::to_string(map.lower);
        ExpectWithin(Attend(*ops_, cache, qkv, heads), expected, bounds, what);
        ExpectWithin(Attend(*reference_, cache, qkv, heads), expected, bounds, what + " reference");
      }
    }
  }
}

// The map matters: without it the same codes give another answer. Otherwise the tests above would
// prove little.
TEST_P(CalibQuantAttentionTest, WithoutShiftsThereIsNoMap) {
  const auto attend = [&](const LogitMap& map) {
    const MixedCase shape = {
        .kv_heads = 1,
        .head_dim = 64,
        .runs = {{{Format::kSegment4, 0, 100, map}, {Format::kRaw16, 100, 20}}}};
    const MixedCache cache(*ops_, shape, {}, kPool, 1, 2);
    return Attend(*ops_, cache, Random(5).Normals(4 * 64, 2), 2);
  };
  const std::vector<float> plain = attend({}), mapped = attend(kPublished);
  double moved = 0;
  for (size_t i = 0; i < plain.size(); ++i) {
    moved = std::max(moved, std::fabs(double{plain[i]} - mapped[i]));
  }
  EXPECT_GT(moved, 0.01);
  EXPECT_EQ(ops_->clamped_slopes(), 0);
}

// If the range is smaller than the shifts, all tokens become equal, their order does not reverse,
// and each row and head counts.
TEST_P(CalibQuantAttentionTest, TheSlopeIsHeldAtZeroAndCounted) {
  constexpr int kDim = 16, kHeads = 4, kRows = 3;
  const auto make = [&](const LogitMap& map) {
    return MixedCache(*ops_,
                      {.kv_heads = 2,
                       .head_dim = kDim,
                       .runs = {{{Format::kSegment2, 0, 40, map}, {Format::kRaw16, 50, kRows}}}},
                      {}, kPool, 1, 2);
  };
  const std::vector<float> qkv = Random(5).Normals(kRows * (kHeads + 4) * kDim);
  const MixedCache wide = make({.raise = 1, .lower = 1000});
  const std::vector<float> out = Attend(*ops_, wide, qkv, kHeads, kRows);
  EXPECT_EQ(ops_->clamped_slopes(), kRows * kHeads);
  // For any wider shifts the result depends only on the smallest logit and `raise`.
  ExpectSameBits(Attend(*ops_, make({.raise = 1, .lower = 5000}), qkv, kHeads, kRows), out, "wide");
  EXPECT_EQ(ops_->clamped_slopes(), 2 * kRows * kHeads);
  std::vector<double> bounds = MixedBounds(GetParam(), wide, qkv, kHeads, {0, kRows});
  ExpectWithin(out, Attend(*reference_, wide, qkv, kHeads, kRows), bounds, "held");
  EXPECT_EQ(reference_->clamped_slopes(), kRows * kHeads);
}

TEST(CalibQuantDeathTest, RunsThatCannotBeRead) {
  const auto ops = MakeCpu("scalar", 1);
  const std::vector<float> qkv(3 * 16);
  std::vector<float> out(16);
  const auto attend = [&](const std::vector<MixedRun>& runs, int rows, bool header) {
    const MixedCache cache(*ops, {.kv_heads = 1, .head_dim = 8, .runs = {runs}}, {}, 64, 1, 2);
    std::vector<KvRun> changed(cache.view().runs, cache.view().runs + runs.size());
    if (!header) changed[0].header = kNoPage;
    KvLayerView view = cache.view();
    view.runs = changed.data();
    const int32_t begin[] = {0, rows};
    ops->PagedAttention(qkv.data(), begin, nullptr, 1, 1, view, out.data());
  };
  attend({{Format::kSegment1, 0, 9, {0, 3}}, {Format::kRaw16, 9, 9}}, 2, true);
  EXPECT_DEATH(attend({{Format::kSegment1, 0, 9}, {Format::kRaw16, 9, 9}}, 1, false),
               "check failed");
  EXPECT_DEATH(
      attend({{Format::kSegment1, 0, 9, {0, 3}}, {Format::kSegment1, 9, 9, {0, 2}}}, 1, true),
      "check failed");
  EXPECT_DEATH(attend({{Format::kRaw16, 0, 9, {0, 3}}}, 2, true), "check failed");
  EXPECT_DEATH(attend({{Format::kRaw16, 0, 9, {-1, 3}}}, 1, true), "check failed");
}

INSTANTIATE_TEST_SUITE_P(Cuda, CalibQuantAttentionTest, ::testing::ValuesIn(AllCudaCases()),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(Cpu, CalibQuantAttentionTest, ::testing::ValuesIn(AllCpuCases()),
                         CaseName);

}  // namespace
}  // namespace tessera::testing
