// Low-pass residuals: on every backend against a plain DCT, and on the CPU the same bits on every
// instruction set.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/half.h"
#include "tests/kernels/test_util.h"

namespace tessera::testing {
namespace {

class LowPassTest : public BackendTest {
 protected:
  std::unique_ptr<Ops> scalar_ = MakeCpu("scalar", 1);
};

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
// One layer's: sums [tokens, 4] of `terms` squares each, errors [tokens, 2] of the distances.
void Append(const std::vector<double>& sums, const std::vector<double>& errors, int64_t terms,
            Expected* out) {
  for (size_t t = 0; t < sums.size() / 4; ++t) {
    for (size_t i = 0; i < 4; ++i) {
      out->values.push_back(static_cast<float>(sums[t * 4 + i]));
      const double error = i < 2 ? errors[t * 2 + i] : 0;
      out->bounds.push_back(error + Gamma(terms + 8) * (sums[t * 4 + i] + error));
    }
  }
}

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
    Append(sums, errors, layers.Row(), &out);
  }
  return out;
}

// The same by products of numbers rounded to half (cuda/low_pass.h): the roundings of tokens and
// cosines are made here too; those of coefficients and residuals, and cosines in doubt, are bounds.
Expected RoundedProducts(Layers& layers, const LowPassCase& c) {
  constexpr double kHalf = 0x1p-11, kSmallest = 0x1p-25;  // roundings to half: relative, absolute
  constexpr double kCosine = 0x1p-20;                     // of cospif and its argument
  const int64_t half = (c.tokens + 1) / 2;
  const double scale = 4 / static_cast<double>(c.tokens);
  const auto rounded = [](double x) {
    return static_cast<double>(HalfToFloat(FloatToHalf(static_cast<float>(x))));
  };
  std::vector<double> cosines(c.kept * half), doubts(c.kept * half);
  for (int64_t k = 0; k < c.kept; ++k) {
    for (int64_t t = 0; t < half; ++t) {
      const int64_t turn = (2 * t + 1) * k % (4 * c.tokens);
      const double cosine =
          std::cos(M_PI * static_cast<double>(turn) / static_cast<double>(2 * c.tokens));
      const double low = rounded(cosine - kCosine), high = rounded(cosine + kCosine);
      cosines[k * half + t] = low;
      doubts[k * half + t] = high - low;
    }
  }
  Expected out;
  for (int layer = 0; layer < c.geometry.layers; ++layer) {
    std::vector<double> sums(c.tokens * 4), errors(c.tokens * 2);
    for (int64_t i = 0; i < layers.Row(); ++i) {
      const bool value = i / c.geometry.head_dim % 2 == 1;
      const auto at = [&](int64_t t) { return HalfToFloat(layers.At(layer, c.first + t, i)); };
      std::vector<double> folded[2], error[2];
      for (int64_t t = 0; t < half; ++t) {
        const float x = at(t), y = at(c.tokens - 1 - t);
        folded[0].push_back(rounded(0.5f * x + 0.5f * y));
        folded[1].push_back(rounded(0.5f * x - 0.5f * y));
      }
      for (int p : {0, 1}) error[p].assign(half, 0);
      std::vector<double> left[2] = {folded[0], folded[1]}, sizes[2] = {folded[0], folded[1]};
      for (int64_t k = 0; k < c.kept; ++k) {
        const int p = static_cast<int>(k % 2);
        double sum = 0, size = 0, doubt = 0;
        for (int64_t t = 0; t < half; ++t) {
          const double once = scale * (k == 0 ? 0.5 : 1) * (2 * t + 1 == c.tokens ? 0.5 : 1);
          sum += once * cosines[k * half + t] * folded[p][t];
          size += once * std::fabs(cosines[k * half + t] * folded[p][t]);
          doubt += once * doubts[k * half + t] * std::fabs(folded[p][t]);
        }
        const double off = doubt + Gamma(2 * half + 8) * size + kHalf * std::fabs(sum) + kSmallest;
        for (int64_t t = 0; t < half; ++t) {
          const double cosine = cosines[k * half + t], in_doubt = doubts[k * half + t];
          left[p][t] -= cosine * sum;
          sizes[p][t] = std::fabs(sizes[p][t]) + std::fabs(cosine * sum);
          error[p][t] += (std::fabs(cosine) + in_doubt) * off + in_doubt * std::fabs(sum);
        }
      }
      for (int64_t t = 0; t < c.tokens; ++t) {
        const int64_t pair = std::min(t, c.tokens - 1 - t);
        double d = left[0][pair] + (t == pair ? 1 : -1) * left[1][pair], e = 0;
        for (int p : {0, 1}) {
          e += error[p][pair] + Gamma(2 * c.kept + 8) * std::fabs(sizes[p][pair]) +
               kHalf * std::fabs(left[p][pair]) + kSmallest;
        }
        d = std::fabs(d);
        sums[t * 4 + value] += d * d;
        sums[t * 4 + 2 + value] += std::pow(at(t), 2);
        errors[t * 2 + value] += 2 * d * e + e * e;
      }
    }
    Append(sums, errors, layers.Row(), &out);
  }
  return out;
}

Expected ExpectedOf(const BackendCase& backend, Layers& layers, const LowPassCase& c) {
  if (backend.cuda() && !backend.precise()) return RoundedProducts(layers, c);
  return PlainDct(layers, c, backend.cuda());
}

TEST_P(LowPassTest, LowPassResidualsAreThoseOfAPlainDct) {
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
    const Expected expected = ExpectedOf(GetParam(), layers, c);
    ExpectWithin(got, expected.values, expected.bounds, "plain DCT");
    const Expected exact = PlainDct(layers, c, false);
    std::vector<double> rounding;
    for (float v : exact.values) rounding.push_back(kUnit * v + 1e-12 * std::fabs(v) + 1e-20);
    ExpectWithin(run(*reference_), exact.values, rounding, "the reference");
    if (!GetParam().cuda()) ExpectSameBits(got, run(*scalar_), "another instruction set");
  }
}

// Parseval: what lies above the cut-off of the spectrum is what is left beside the base, so a
// layer's outlier energy needs no second pass (FlashCache's budget identity).
TEST_P(LowPassTest, LowPassResidualsAddUpToTheEnergyAboveTheCutOff) {
  const LowPassCase c = {{1, 2, 32}, 120, 0, 120, 25};
  Layers layers(c.geometry, c.stored, 11);
  std::vector<float> got(c.tokens * 4);
  ops_->LowPassResiduals(layers.arena(), c.geometry, layers.pages(), layers.layer_pages(), c.first,
                         c.tokens, c.kept, got.data());
  const Expected expected = ExpectedOf(GetParam(), layers, c);
  for (const int value : {0, 1}) {
    double above = 0, all = 0, residuals = 0, norms = 0, bound = 0;
    for (int64_t i = 0; i < layers.Row(); ++i) {
      if (i / c.geometry.head_dim % 2 != value) continue;
      for (int64_t m = 0; m < c.tokens; ++m) {
        double coefficient = 0;
        for (int64_t t = 0; t < c.tokens; ++t) {
          coefficient += HalfToFloat(layers.At(0, t, i)) *
                         std::cos(M_PI * static_cast<double>(m * (2 * t + 1)) /
                                  static_cast<double>(2 * c.tokens));
        }
        const double power =
            coefficient * coefficient * (m ? 2.0 : 1.0) / static_cast<double>(c.tokens);
        all += power;
        if (m >= c.kept) above += power;
      }
    }
    for (int64_t t = 0; t < c.tokens; ++t) {
      residuals += got[t * 4 + value];
      norms += got[t * 4 + 2 + value];
      bound += expected.bounds[t * 4 + value] + kUnit * got[t * 4 + value];
    }
    EXPECT_NEAR(residuals, above, bound);
    EXPECT_NEAR(norms, all, Gamma(layers.Row() + 8) * all);
    EXPECT_GT(above / all, 0.01);  // there is something above, and something below
    EXPECT_LT(above / all, 0.99);
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, LowPassTest, ::testing::ValuesIn(AllCpuCases()), CaseName);
INSTANTIATE_TEST_SUITE_P(Cuda, LowPassTest, ::testing::ValuesIn(AllCudaCases()), CaseName);

}  // namespace
}  // namespace tessera::testing
