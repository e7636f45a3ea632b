// Compares every backend's MatMul with the reference, within the bound of the roundings of inputs
// and sums.
#include <cmath>

#include "base/half.h"
#include "kernels/cuda/gemm/precision.h"
#include "tests/kernels/test_util.h"

namespace tessera::testing {
namespace {

struct Problem {
  int64_t rows, in, out;
  DType dtype = DType::kBF16;
  bool bias = false, residual = false, misaligned = false;
  Activation act = Activation::kNone;
  std::vector<int64_t> parts = {};  // rows of the concatenated parts; empty: one part

  std::string Name() const {
    return std::to_string(rows) + "x" + std::to_string(in) + "x" + std::to_string(out) + " " +
           DTypeName(dtype) + " act " + std::to_string(static_cast<int>(act)) +
           (bias ? " bias" : "") + (residual ? " residual" : "") + " parts " +
           std::to_string(parts.size());
  }
};

// A bound of |act'(x)| for all three activations (the largest is GELU's, 1.129).
constexpr double kActivationSlope = 1.13;

// Returns the error of x as a sum of `terms` numbers of the weights' type
// (kernels/cuda/gemm/precision.h).
double LostByTerms(float x, DType dtype, int terms) {
  for (int t = 0; t < terms; ++t) {
    x -= dtype == DType::kF16 ? HalfToFloat(FloatToHalf(x)) : BFloat16ToFloat(FloatToBFloat16(x));
  }
  return std::fabs(x);
}

class MatMulTest : public BackendTest {
 protected:
  void Check(const Problem& p, uint64_t seed);
};

void MatMulTest::Check(const Problem& p, uint64_t seed) {
  Ops &ops = *ops_, &reference = *reference_;
  Random random(seed);
  const Stored weight(random.Normals(p.in * p.out), p.dtype, p.misaligned);
  const Stored bias(random.Normals(p.out), p.dtype, p.misaligned);
  const std::vector<float> x = random.Normals(p.rows * p.in);
  const std::vector<float> residual = random.Normals(p.rows * p.out, 4);
  std::vector<int64_t> part_rows = p.parts.empty() ? std::vector<int64_t>{p.out} : p.parts;
  std::vector<LinearPart> parts;
  int64_t first = 0;
  for (int64_t n : part_rows) {
    const auto at = [&](const Stored& s, int64_t i) {
      return static_cast<const uint8_t*>(s.data()) + i * DTypeBytes(p.dtype);
    };
    parts.push_back({at(weight, first * p.in), p.bias ? at(bias, first) : nullptr, n});
    first += n;
  }
  ASSERT_EQ(first, p.out);

  // In place if there is a residual, as the engine calls it.
  std::vector<float> y = p.residual ? residual : std::vector<float>(p.rows * p.out, NAN);
  std::vector<float> expected(y.size(), NAN);
  std::vector<float> before(y.size());  // the activation's inputs
  const Linear w = ops.MakeLinear(parts, p.in, p.dtype);
  const Linear truth = reference.MakeLinear(parts, p.in, p.dtype);
  EXPECT_EQ(w.in, p.in);
  EXPECT_EQ(w.out, p.out);
  EXPECT_EQ(w.bias != nullptr, p.bias);
  ops.MatMul(w, x.data(), p.rows, y.data(), p.act, p.residual ? y.data() : nullptr);
  reference.MatMul(truth, x.data(), p.rows, expected.data(), p.act,
                   p.residual ? residual.data() : nullptr);
  if (p.act != Activation::kNone) reference.MatMul(truth, x.data(), p.rows, before.data());

  // Tensor cores truncate the sum of a step's aligned products instead of rounding it. Each
  // addition and each alignment may lose 2 units.
  const bool tensor_cores = GetParam().cuda() && !FloatActivations(p.dtype, p.rows, p.in);
  const int terms = ActivationTerms(p.dtype, GetParam().precise());
  const double sum_error = tensor_cores ? Gamma(4 * (p.in + terms)) : Gamma(p.in + 1);
  std::vector<double> bound(y.size());
  for (int64_t r = 0; r < p.rows; ++r) {
    for (int64_t o = 0; o < p.out; ++o) {
      double sizes = p.bias ? std::fabs(bias[o]) : 0, lost = 0;
      for (int64_t k = 0; k < p.in; ++k) {
        const double size = std::fabs(weight[o * p.in + k]);
        sizes += size * std::fabs(x[r * p.in + k]);
        if (tensor_cores) lost += size * LostByTerms(x[r * p.in + k], p.dtype, terms);
      }
      const int64_t i = r * p.out + o;
      double e = sum_error * (sizes + lost) + lost;
      if (p.act != Activation::kNone) {
        e = kActivationSlope * e + 8 * kUnit * std::fabs(before[i]);  // exp, erf, product, quotient
      }
      if (p.residual) e += kUnit * (std::fabs(expected[i]) + e);
      bound[i] = e + kUnit * std::fabs(expected[i]);  // the reference's own rounding
    }
  }
  ExpectWithin(y, expected, bound, p.Name());
}

TEST_P(MatMulTest, OddShapes) {
  uint64_t seed = 1;
  for (int64_t n : {1, 15, 16, 17, 31, 33, 64, 129}) {
    for (int64_t k : {1, 8, 33, 257}) {
      Check({.rows = 3, .in = k, .out = n}, seed++);
      Check({.rows = 19, .in = k, .out = n}, seed++);
    }
  }
}

TEST_P(MatMulTest, AllRowCounts) {
  for (int64_t rows = 1; rows <= 64; ++rows) {
    Check({.rows = rows, .in = 67, .out = 50}, 1000 + rows);
  }
}

TEST_P(MatMulTest, SeveralCacheBlocks) {
  // More rows than a chunk (264), more columns than a group (128), more than two blocks of k (256),
  // and enough work for several threads.
  if (GetParam().isa == "scalar") {
    Check({.rows = 267, .in = 300, .out = 40, .bias = true}, 1);
    return;
  }
  Check({.rows = 267, .in = 520, .out = 135, .bias = true}, 2);
  Check({.rows = 1, .in = 600, .out = 1000, .residual = true}, 3);
}

TEST_P(MatMulTest, DTypes) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (bool misaligned : {false, true}) {
      for (int64_t rows : {1, 2, 7, 33}) {
        Check({.rows = rows,
               .in = 300,
               .out = 35,
               .dtype = dtype,
               .bias = true,
               .misaligned = misaligned},
              7 * rows + misaligned);
      }
    }
  }
}

TEST_P(MatMulTest, BiasActivationResidual) {
  for (Activation act :
       {Activation::kNone, Activation::kGelu, Activation::kQuickGelu, Activation::kSilu}) {
    for (bool bias : {false, true}) {
      for (bool residual : {false, true}) {
        for (int64_t rows : {1, 5, 30}) {
          // in = 3 leaves sums near zero, where GELU has its tails; 280 crosses a block of k.
          for (int64_t in : {3, 280}) {
            Check(
                {.rows = rows, .in = in, .out = 37, .bias = bias, .residual = residual, .act = act},
                in + rows);
          }
        }
      }
    }
  }
}

TEST_P(MatMulTest, GluedParts) {
  for (int64_t rows : {1, 20}) {
    for (bool misaligned : {false, true}) {
      Check({.rows = rows,
             .in = 40,
             .out = 62,
             .bias = true,
             .misaligned = misaligned,
             .parts = {1, 15, 16, 30}},
            rows);
    }
  }
}

// A dense layer with a prologue. x is [rows, wide], weight [out, in].
struct PrologueCase {
  Prologue::Kind kind;
  DType dtype;
  int64_t rows, in, out, wide;
  std::vector<float> x, scale, shift;
  Stored weight;
  Prologue prologue;

  PrologueCase(Prologue::Kind kind, DType dtype, int64_t rows, int64_t in)
      : PrologueCase(kind, dtype, rows, in, Random(rows + in)) {}
  PrologueCase(const PrologueCase&) = delete;  // `prologue` points into this
  bool norm() const { return kind == Prologue::kRmsNorm || kind == Prologue::kLayerNorm; }
  std::string what() const {
    return std::to_string(static_cast<int>(kind)) + " " + DTypeName(dtype) + " " +
           std::to_string(rows) + "x" + std::to_string(in);
  }

 private:
  PrologueCase(Prologue::Kind kind, DType dtype, int64_t rows, int64_t in, Random random)
      : kind(kind),
        dtype(dtype),
        rows(rows),
        in(in),
        out(33),
        wide(kind == Prologue::kSwiGlu ? 2 * in : in),
        weight(random.Normals(in * out), dtype, false) {
    x = random.Normals(rows * wide, 2);
    scale = random.Normals(in);
    shift = random.Normals(in);
    prologue = {kind, norm() ? scale.data() : nullptr,
                kind == Prologue::kLayerNorm ? shift.data() : nullptr, 1e-5f,
                rows == 40 ? Activation::kGelu : Activation::kQuickGelu};
  }
};

// Runs the prologue's operation by itself: before [rows, in].
void RunSeparately(Ops& ops, const PrologueCase& c, float* before) {
  switch (c.kind) {
    case Prologue::kRmsNorm:
      return ops.RmsNorm(c.x.data(), c.scale.data(), c.rows, c.in, c.prologue.eps, before);
    case Prologue::kLayerNorm:
      return ops.LayerNorm(c.x.data(), c.scale.data(), c.shift.data(), c.rows, c.in, c.prologue.eps,
                           before);
    case Prologue::kSwiGlu:
      return ops.SwiGlu(c.x.data(), c.rows, c.in, before);
    default:
      break;
  }
  // The layer before: the identity, with the activation.
  std::vector<float> identity(c.in * c.in);
  for (int64_t i = 0; i < c.in; ++i) identity[i * c.in + i] = 1;
  const Linear one = ops.MakeLinear({{identity.data(), nullptr, c.in}}, c.in, DType::kF32);
  ops.MatMul(one, c.x.data(), c.rows, before, c.prologue.activation);
}

// Returns a GPU backend's bounds [rows, out]: another order of the norm's sums, and the rounding to
// the weights' type.
std::vector<double> PrologueBounds(const BackendCase& backend, const PrologueCase& c,
                                   const std::vector<float>& before) {
  const bool rounds = !FloatActivations(c.dtype, c.rows, c.in);
  const bool layer_norm = c.kind == Prologue::kLayerNorm;
  const int terms = ActivationTerms(c.dtype, backend.precise());
  const double unit = c.dtype == DType::kF16 ? 0x1p-11 : 0x1p-8;
  std::vector<double> bounds;
  for (int64_t r = 0; r < c.rows; ++r) {
    const float* x = &c.x[r * c.wide];
    // Errors of a norm's mean and scale are as in rows_test.cc, for sums in any order.
    double mean = 0, sizes = 0, squares = 0;
    for (int64_t k = 0; k < c.in; ++k) {
      mean += layer_norm ? x[k] / c.in : 0;
      sizes += std::fabs(x[k]) / c.in;
    }
    for (int64_t k = 0; k < c.in; ++k) squares += std::pow(x[k] - mean, 2) / c.in;
    const double inverse = 1 / std::sqrt(squares + c.prologue.eps);
    const double mean_error = layer_norm ? Gamma(c.in + 8) * sizes + kUnit * std::fabs(mean) : 0;
    const double scale_error = Gamma(c.in + 8) / 2 + 6 * kUnit + std::pow(mean_error * inverse, 2);
    for (int64_t o = 0; o < c.out; ++o) {
      double e = 0, all = 0;
      for (int64_t k = 0; k < c.in; ++k) {
        const double v = std::fabs(before[r * c.in + k]), size = std::fabs(c.weight[o * c.in + k]);
        double d = 8 * kUnit * v;
        if (c.norm()) {
          const double away = std::fabs(x[k] - mean);
          d = std::fabs(c.scale[k]) * inverse * (mean_error + (away + mean_error) * scale_error) +
              2 * kUnit * v;
        }
        if (rounds) d += std::pow(unit, terms) * (v + d) + 0x1p-25;
        e += size * d;
        all += size * (v + d);
      }
      bounds.push_back(e + Gamma(4 * (c.in + terms)) * all);
    }
  }
  return bounds;
}

// A prologue must give the same bits as the operation of that name on the CPU, and values within
// PrologueBounds on a GPU.
TEST_P(MatMulTest, Prologues) {
  for (auto kind :
       {Prologue::kRmsNorm, Prologue::kLayerNorm, Prologue::kSwiGlu, Prologue::kActivation}) {
    for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      for (int64_t rows : {3, 40, 70}) {
        for (int64_t in : {67, 300}) {
          const PrologueCase c(kind, dtype, rows, in);
          std::vector<float> y(rows * c.out, NAN), expected = y, before(rows * in, NAN);
          const Linear w = ops_->MakeLinear({{c.weight.data(), nullptr, c.out}}, in, dtype);
          ops_->MatMul(w, c.x.data(), rows, y.data(), Activation::kNone, nullptr, c.prologue);

          Ops& separate = GetParam().cuda() ? *reference_ : *ops_;
          RunSeparately(separate, c, before.data());
          const Linear same = separate.MakeLinear({{c.weight.data(), nullptr, c.out}}, in, dtype);
          separate.MatMul(same, before.data(), rows, expected.data());
          if (GetParam().cuda()) {
            ExpectWithin(y, expected, PrologueBounds(GetParam(), c, before), c.what());
          } else {
            ExpectSameBits(y, expected, c.what());
          }
        }
      }
    }
  }
}

TEST_P(MatMulTest, NoRowsDoesNothing) {
  const std::vector<float> w(16);
  const Linear linear = ops_->MakeLinear({{w.data(), nullptr, 4}}, 4, DType::kF32);
  float y = 7;
  ops_->MatMul(linear, w.data(), 0, &y);
  EXPECT_EQ(y, 7);
}

INSTANTIATE_TEST_SUITE_P(Cpu, MatMulTest, ::testing::ValuesIn(AllCpuCases()), CaseName);
INSTANTIATE_TEST_SUITE_P(Cuda, MatMulTest, ::testing::ValuesIn(AllCudaCases()), CaseName);

}  // namespace
}  // namespace tessera::testing
