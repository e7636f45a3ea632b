// What the kernel tests share: backends under test, random operands, comparison with a bound per
// element, and a paged cache filled with known values.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/backend/backend.h"
#include "kernels/ops.h"

namespace tessera::testing {

constexpr double kUnit = 0x1p-24;  // unit roundoff of float
// The classic bound of n roundings: n u / (1 - n u).
constexpr double Gamma(int64_t n) { return n * kUnit / (1 - n * kUnit); }

// A backend as the suites instantiate it, and its name in test names. `isa` is an instruction set
// of the CPU, or "cuda", "cuda_planned" (attention is told ahead: Ops::PlanAttention) or
// "cuda_precise" (BackendOptions::precise), which have no threads.
struct BackendCase {
  std::string isa;
  int threads;
  bool cuda() const { return threads == 0; }
  bool precise() const { return isa == "cuda_precise"; }
};
inline std::string CaseName(const ::testing::TestParamInfo<BackendCase>& info) {
  const BackendCase& c = info.param;
  return c.cuda() ? c.isa : c.isa + "_" + std::to_string(c.threads) + "_threads";
}
std::vector<BackendCase> AllCpuCases();
std::vector<BackendCase> AllCudaCases();
bool IsaAvailable(const std::string& isa);
std::unique_ptr<Ops> MakeCpu(const std::string& isa, int threads);
std::unique_ptr<Ops> MakeReference();

// For suites over BackendCase: skips, with the reason, what this machine cannot run. All operands
// are in host memory; for CUDA `ops_` copies them to the device and back (staged_ops.h).
class BackendTest : public ::testing::TestWithParam<BackendCase> {
 protected:
  void SetUp() override;
  // Whether pages of a format hold tokens and the backend takes them; says so where one on a GPU
  // does not. The CPU's take every one.
  bool Takes(Format format) const;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Ops> reference_ = MakeReference();
};

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  float Normal() { return normal_(engine_); }
  int64_t Below(int64_t n) { return static_cast<int64_t>(engine_() % static_cast<uint64_t>(n)); }
  std::vector<float> Normals(int64_t n, float scale = 1);
  std::mt19937_64& engine() { return engine_; }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<float> normal_;
};

// Values stored as `dtype`, at an address that is odd if `misaligned`.
class Stored {
 public:
  Stored(const std::vector<float>& values, DType dtype, bool misaligned);
  const void* data() const { return bytes_.data() + offset_; }
  float operator[](int64_t i) const;

 private:
  std::vector<uint8_t> bytes_;
  size_t offset_;
  DType dtype_;
};

// |actual[i] - expected[i]| <= bound[i] for all i; a failure names the worst element.
void ExpectWithin(const std::vector<float>& actual, const std::vector<float>& expected,
                  const std::vector<double>& bound, const std::string& what);
void ExpectSameBits(const std::vector<float>& actual, const std::vector<float>& expected,
                    const std::string& what);

// How a backend computes attention: roundings of one dot product, tokens between two rescales of
// the sums, and whether on tensor cores, where q and the softmax's weights are rounded to half and
// sums of products are cut, not rounded (matmul_test.cc).
struct AttentionArithmetic {
  int64_t dot, rescale_tokens;
  bool tensor_cores;
};
// For a sequence with `rows` query rows and `group` query heads a KV head, some of whose runs may
// have `low_bits`.
AttentionArithmetic ArithmeticOf(const BackendCase& backend, int64_t dim, int rows, int group,
                                 bool low_bits);

// One output's operands. Magnitudes of a stored element s c + m are |s c| + |m|: both are summed
// apart from each other where scales are folded into sums.
struct AttentionSizes {
  int64_t tokens = 0;
  double scores = 0;           // the largest sum of |q| times magnitudes of K, with the scale
  double low = 0, high = 0;    // of the exact scores
  double flat = 0;             // the largest |q| times the sum of (c + s c), with the scale
  double value = 0, code = 0;  // the largest magnitude and code of V
  bool low_bits = false;
};

// Bound of one output of attention: scores err by the dot product's roundings, which weights feel
// as relative errors; a weighted mean of values moves by at most twice the largest such error times
// the largest value; then come the roundings of the sums over tokens.
double AttentionBound(const AttentionArithmetic& arithmetic, const AttentionSizes& sizes);

// Sequences in a paged RAW16 cache; unused slots hold NaN, so that reading one shows.
struct PagedCase {
  int kv_heads, head_dim;
  std::vector<std::vector<int>> run_tokens;  // per sequence, tokens of each run
};
class PagedCache {
 public:
  // `shuffle` seeds the places of the pages in the arena, `values` what the tokens hold.
  PagedCache(const PagedCase& shape, uint64_t shuffle, uint64_t values);
  KvLayerView view() const;
  // Half bits of one element of token `token` of sequence `s`, counted over its runs.
  uint16_t& At(int s, int token, int head, bool value, int i);
  KvSlot Slot(int s, int token) const;
  int Tokens(int s) const;
  // Cuts sequence s (its only run) to its first n tokens.
  void Truncate(int s, int n) { runs_[run_begin_[s]].tokens = n; }

 private:
  PagedCase shape_;
  KvGeometry geometry_;
  std::vector<uint8_t> bytes_;
  uint8_t* arena_;  // aligned to 64 bytes within bytes_
  std::vector<PageId> pages_;
  std::vector<KvRun> runs_;
  std::vector<int32_t> run_begin_;
};

}  // namespace tessera::testing
