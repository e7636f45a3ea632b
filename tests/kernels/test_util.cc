#include "tests/kernels/test_util.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/half.h"
#include "kernels/layout/quantize.h"
#include "kernels/tensor.h"
#include "tests/kernels/staged_ops.h"

namespace tessera::testing {

std::vector<BackendCase> AllCpuCases() {
  return {{"avx512", 1}, {"avx512", 2}, {"avx2", 1}, {"avx2", 2}, {"scalar", 1}, {"scalar", 2}};
}

std::vector<BackendCase> AllCudaCases() {
  return {{"cuda", 0}, {"cuda_planned", 0}, {"cuda_precise", 0}};
}

bool IsaAvailable(const std::string& isa) {
  const std::vector<std::string> all = CpuInstructionSets();
  return std::find(all.begin(), all.end(), isa) != all.end();
}

std::unique_ptr<Ops> MakeCpu(const std::string& isa, int threads) {
  auto ops = MakeBackend("cpu", {.cpu_threads = threads, .cpu_isa = isa});
  TESSERA_CHECK(ops.ok());
  return *std::move(ops);
}

std::unique_ptr<Ops> MakeReference() { return *MakeBackend("reference", {}); }

void BackendTest::SetUp() {
  if (GetParam().cuda()) {
    auto ops = MakeBackend("cuda", {.precise = GetParam().precise()});
    if (!ops.ok()) GTEST_SKIP() << ops.status().message();
    ops_ = StageOps(*std::move(ops), GetParam().isa == "cuda_planned");
    return;
  }
  if (!IsaAvailable(GetParam().isa)) GTEST_SKIP() << "this machine lacks " << GetParam().isa;
  ops_ = MakeCpu(GetParam().isa, GetParam().threads);
}

bool BackendTest::Takes(Format format) const {
  if (!HoldsTokens(format)) return false;
  if (ops_->Supports(format)) return true;
  EXPECT_TRUE(GetParam().cuda()) << FormatName(format);
  std::printf("%s does not take %s\n", GetParam().isa.c_str(), FormatName(format));
  return false;
}

std::vector<float> Random::Normals(int64_t n, float scale) {
  std::vector<float> v(n);
  for (float& x : v) x = Normal() * scale;
  return v;
}

Stored::Stored(const std::vector<float>& values, DType dtype, bool misaligned) : dtype_(dtype) {
  bytes_.resize(values.size() * DTypeBytes(dtype) + 2);
  offset_ = (reinterpret_cast<uintptr_t>(bytes_.data()) & 1) ^ (misaligned ? 1 : 0);
  for (size_t i = 0; i < values.size(); ++i) {
    uint8_t* p = bytes_.data() + offset_ + i * DTypeBytes(dtype);
    const uint16_t bits =
        dtype == DType::kF16 ? FloatToHalf(values[i]) : FloatToBFloat16(values[i]);
    if (dtype == DType::kF32) {
      std::memcpy(p, &values[i], 4);
    } else {
      std::memcpy(p, &bits, 2);
    }
  }
}

float Stored::operator[](int64_t i) const { return ElementAsFloat({data(), dtype_, {}}, i); }

void ExpectWithin(const std::vector<float>& actual, const std::vector<float>& expected,
                  const std::vector<double>& bound, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size());
  ASSERT_EQ(actual.size(), bound.size());
  size_t worst = 0;
  double ratio = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double error = std::fabs(double{actual[i]} - expected[i]);
    // Written so that a NaN fails.
    const double r = error <= bound[i] ? (bound[i] > 0 ? error / bound[i] : 0)
                                       : (bound[i] > 0 ? error / bound[i] : 1e30);
    if (!(r <= ratio)) {
      ratio = r;
      worst = i;
    }
    if (std::isnan(r)) break;
  }
  EXPECT_LE(ratio, 1) << what << ": worst element " << worst << " of " << actual.size() << ": "
                      << actual[worst] << ", expected " << expected[worst] << " within "
                      << bound[worst];
}

void ExpectSameBits(const std::vector<float>& actual, const std::vector<float>& expected,
                    const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(actual[i]), std::bit_cast<uint32_t>(expected[i]))
        << what << ": element " << i << " of " << actual.size() << ": " << actual[i] << " against "
        << expected[i];
  }
}

AttentionArithmetic ArithmeticOf(const BackendCase& backend, int64_t dim, int rows, int group,
                                 bool low_bits) {
  if (!backend.cuda()) return {dim / 16 + 6, 16, false};
  const bool halves = !backend.precise() && (dim == 64 || dim == 128);
  // CUDA cores: 8 products per lane, at most 5 sums over lanes, and the scale; rescaled every 4
  // tokens.
  return {8 + 5 + 3, 4, halves && (rows > 1 || group > 1 || low_bits)};
}

double AttentionBound(const AttentionArithmetic& arithmetic, const AttentionSizes& sizes) {
  const double range = sizes.high - sizes.low;
  if (arithmetic.tensor_cores) {
    // 2^-11 of q and of a weight, or 2^-25 below the normal range. For low-bit pages there is more.
    // Either elements are rounded to half too. Or scales of K are multiplied into q (2^-11 again; a
    // q that is smaller than its largest by more than half's normal range errs by up to 2^-15 of
    // that) and scales of V into weights.
    const double rounds = sizes.low_bits ? 2 : 1;
    const double score = (rounds * 0x1p-11 + Gamma(4 * 128)) * sizes.scores + 4 * kUnit * range +
                         0x1p-15 * sizes.flat;
    const double weight = 2 * (score + 4 * kUnit) + rounds * 0x1p-11 + sizes.tokens * 0x1p-25;
    return (weight + Gamma(5 * sizes.tokens + 8)) * 2 * sizes.value +
           static_cast<double>(sizes.tokens) * 0x1p-25 * sizes.code;
  }
  const double score = Gamma(arithmetic.dot) * sizes.scores + kUnit * range;
  const double weight = 2 * (score + 4 * kUnit);
  const int64_t rescales = sizes.tokens / arithmetic.rescale_tokens + 1;
  return (weight + Gamma(sizes.tokens + 2 * rescales + 8)) * 2 * sizes.value;
}

PagedCache::PagedCache(const PagedCase& shape, uint64_t shuffle, uint64_t values)
    : shape_(shape),
      geometry_{.layers = 1, .kv_heads = shape.kv_heads, .head_dim = shape.head_dim} {
  run_begin_.push_back(0);
  int32_t pages = 0;
  for (const std::vector<int>& runs : shape.run_tokens) {
    for (int tokens : runs) {
      runs_.push_back({Format::kRaw16, pages, tokens});
      pages += CeilDiv(tokens, PageTokens(Format::kRaw16));
    }
    run_begin_.push_back(static_cast<int32_t>(runs_.size()));
  }
  const int64_t page_bytes = PageBytes(Format::kRaw16, geometry_);
  bytes_.resize((pages + 1) * page_bytes + 64);
  arena_ = bytes_.data();
  while (reinterpret_cast<uintptr_t>(arena_) % 64 != 0) ++arena_;
  const uint16_t nan = 0x7e00;
  for (int64_t i = 0; i < (pages + 1) * page_bytes; i += 2) std::memcpy(arena_ + i, &nan, 2);

  std::vector<int64_t> places(pages + 1);
  std::iota(places.begin(), places.end(), 0);
  Random order(shuffle);
  std::shuffle(places.begin(), places.end(), order.engine());
  for (int32_t p = 0; p < pages; ++p) {
    pages_.push_back(static_cast<PageId>(places[p] * page_bytes / kPageUnitBytes));
  }
  Random random(values);
  for (size_t s = 0; s < shape.run_tokens.size(); ++s) {
    for (int t = 0; t < Tokens(s); ++t) {
      for (int i = 0; i < shape.kv_heads * 2 * shape.head_dim; ++i) {
        At(s, t, i / shape.head_dim / 2, i / shape.head_dim % 2, i % shape.head_dim) =
            FloatToHalf(random.Normal());
      }
    }
  }
}

KvLayerView PagedCache::view() const {
  return {arena_, geometry_, pages_.data(), runs_.data(), run_begin_.data()};
}

int PagedCache::Tokens(int s) const {
  int n = 0;
  for (int r = run_begin_[s]; r < run_begin_[s + 1]; ++r) n += runs_[r].tokens;
  return n;
}

KvSlot PagedCache::Slot(int s, int token) const {
  constexpr int kTokens = PageTokens(Format::kRaw16);
  int r = run_begin_[s];
  for (; token >= runs_[r].tokens; ++r) token -= runs_[r].tokens;
  return {pages_[runs_[r].first_page + token / kTokens], static_cast<uint32_t>(token % kTokens)};
}

uint16_t& PagedCache::At(int s, int token, int head, bool value, int i) {
  const KvSlot slot = Slot(s, token);
  return reinterpret_cast<uint16_t*>(
      arena_ + slot.page * kPageUnitBytes +
      Raw16Offset(shape_.head_dim, head, value, static_cast<int>(slot.slot)))[i];
}

}  // namespace tessera::testing
