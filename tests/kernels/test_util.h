// Helpers of the kernel tests: backends under test, random inputs, comparison with a bound per
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
// Returns the classic bound of n roundings: n u / (1 - n u).
constexpr double Gamma(int64_t n) { return n * kUnit / (1 - n * kUnit); }

// A backend as the suites instantiate it, and its name in test names. `isa` is an instruction set
// of the CPU, or one of "cuda", "cuda_planned" (attention is planned: Ops::PlanAttention) and
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

// The fixture of suites over BackendCase. It skips, with the reason, what this machine cannot run.
// All inputs are in host memory; for CUDA `ops_` copies them to the device and back (staged_ops.h).
class BackendTest : public ::testing::TestWithParam<BackendCase> {
 protected:
  void SetUp() override;
  // Returns whether pages of a format hold tokens and the backend supports them. Prints it if a GPU
  // backend does not; the CPU backends support every format.
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

// Values stored as `dtype`, at an odd address if `misaligned`.
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

// Expects |actual[i] - expected[i]| <= bound[i] for all i; a failure names the worst element.
void ExpectWithin(const std::vector<float>& actual, const std::vector<float>& expected,
                  const std::vector<double>& bound, const std::string& what);
void ExpectSameBits(const std::vector<float>& actual, const std::vector<float>& expected,
                    const std::string& what);

// How a backend computes attention: roundings of one dot product, tokens between two rescales of
// the sums, and whether it uses tensor cores. On those, q and the softmax's weights are rounded to
// half, and sums of products are truncated, not rounded (matmul_test.cc).
struct AttentionArithmetic {
  int64_t dot, rescale_tokens;
  bool tensor_cores;
};
// Returns it for a sequence with `rows` query rows and `group` query heads per KV head; `low_bits`
// says that some of its runs may be low-bit.
AttentionArithmetic ArithmeticOf(const BackendCase& backend, int64_t dim, int rows, int group,
                                 bool low_bits);

// The magnitudes of one output's inputs. That of a stored element s c + m is |s c| + |m|: the two
// are summed separately if scales are folded into sums.
struct AttentionSizes {
  int64_t tokens = 0;
  double scores = 0;           // the largest sum of |q| times magnitudes of K, with the scale
  double low = 0, high = 0;    // range of the exact scores
  double flat = 0;             // the largest |q| times the sum of (c + s c), with the scale
  double value = 0, code = 0;  // the largest magnitude and code of V
  bool low_bits = false;
};

// Returns the bound of one output of attention. Scores err by the dot product's roundings, which
// become relative errors of the weights. A weighted mean of values moves by at most twice the
// largest such error times the largest value. The roundings of the sums over tokens are added.
double AttentionBound(const AttentionArithmetic& arithmetic, const AttentionSizes& sizes);

// Sequences in a paged RAW16 cache. Unused slots hold NaN, so that a read of one shows.
struct PagedCase {
  int kv_heads, head_dim;
  std::vector<std::vector<int>> run_tokens;  // per sequence, tokens of each run
};
class PagedCache {
 public:
  // `shuffle` seeds the positions of the pages in the arena, `values` the tokens' content.
  PagedCache(const PagedCase& shape, uint64_t shuffle, uint64_t values);
  KvLayerView view() const;
  // Returns the half bits of one element of token `token` of sequence `s`, counted over its runs.
  uint16_t& At(int s, int token, int head, bool value, int i);
  KvSlot Slot(int s, int token) const;
  int Tokens(int s) const;
  // Shortens sequence s (its only run) to its first n tokens.
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
