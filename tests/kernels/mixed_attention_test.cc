// Compares attention over runs of any formats with dequantize-then-attend in double on the same
// codes. It must not depend on order, split or other content of the call.
#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/layout/quantize.h"
#include "tests/kernels/mixed_cache.h"

namespace tessera::testing {
namespace {

constexpr int kPool = 352;  // tokens to choose from
const QuantRule kRule = {.clip_k = 0.9f, .clip_v = 0.9f};

// Runs attention and compares it with the reference, which reads element by element and sums in
// double.
std::vector<float> Check(const BackendCase& backend, Ops& ops, Ops& reference,
                         const MixedCase& shape, std::vector<int> rows, int group,
                         const std::string& what) {
  MixedCache cache(ops, shape, kRule, kPool, 1, 2);
  const int dim = shape.head_dim, heads = shape.kv_heads * group;
  std::vector<int32_t> begin = {0};
  for (int n : rows) begin.push_back(begin.back() + n);
  const std::vector<float> qkv =
      Random(5).Normals(begin.back() * (heads + 2 * shape.kv_heads) * dim, 2);
  std::vector<float> out(begin.back() * heads * dim, NAN), expected = out;
  const auto sequences = static_cast<int64_t>(rows.size());
  ops.PagedAttention(qkv.data(), begin.data(), nullptr, sequences, heads, cache.view(), out.data());
  reference.PagedAttention(qkv.data(), begin.data(), nullptr, sequences, heads, cache.view(),
                           expected.data());
  ExpectWithin(out, expected, MixedBounds(backend, cache, qkv, heads, begin), what);
  return out;
}

class MixedAttentionTest : public BackendTest {};

TEST_P(MixedAttentionTest, EveryFormatAloneAtEveryLength) {
  for (int f = 0; f < kNumFormats; ++f) {
    const auto format = static_cast<Format>(f);
    if (!Takes(format)) continue;
    const int page = PageTokens(format);
    for (int tokens : {1, page - 1, page, page + 1, 3 * page}) {
      if (FillsWholePages(format) && tokens % page != 0) continue;
      Check(GetParam(), *ops_, *reference_,
            {.kv_heads = 2, .head_dim = 64, .runs = {{{format, 0, tokens}}}}, {1}, 1,
            std::string(FormatName(format)) + " tokens " + std::to_string(tokens));
    }
  }
}

TEST_P(MixedAttentionTest, HeadDimsAndGroups) {
  for (int dim : {8, 40, 128, 256}) {
    for (int group : {1, 3, 8}) {
      if (group != 3 && dim != 40) continue;
      for (Format low :
           {Format::kToken8, Format::kToken4, Format::kToken2, Format::kToken1, Format::kKivi4,
            Format::kKivi2, Format::kKivi1, Format::kToken8G32, Format::kToken4G64,
            Format::kToken2G32, Format::kToken1G64, Format::kToken1G32, Format::kKivi2G32,
            Format::kKivi4G64, Format::kSegment4, Format::kSegment2, Format::kSegment1}) {
        if (low > Format::kKivi1 && dim != 40 && dim != 128) continue;
        if (!Takes(low)) continue;
        if (low > Format::kKivi1 && group != 3) continue;
        const int tokens = FillsWholePages(low) ? 64 : 50;
        Check(GetParam(), *ops_, *reference_,
              {.kv_heads = 2,
               .head_dim = dim,
               .runs = {{{low, 0, tokens}, {Format::kRaw16, 100, 9}}}},
              {3}, group, FormatName(low) + std::string(" dim ") + std::to_string(dim));
      }
    }
  }
}

TEST_P(MixedAttentionTest, AllFormatsInOneSequence) {
  MixedCase shape{
      .kv_heads = 1,
      .head_dim = 128,
      .runs = {{{Format::kToken1, 0, 33},
                {Format::kKivi2, 33, 32},
                {Format::kToken8, 65, 17},
                {Format::kKivi1, 82, 32},
                {Format::kToken2, 114, 1},
                {Format::kKivi4, 115, 32},
                {Format::kToken4, 147, 31},
                {Format::kToken2G64, 3, 47},
                {Format::kKivi2G32, 50, 32},
                {Format::kSegment1, 90, 77},
                {Format::kSegment4, 20, 33, {0.25f, 1.5f}},
                {Format::kToken4G32, 80, 9, {0.25f, 1.5f}},
                {Format::kRaw16, 178, 40}},
               {{Format::kRaw16, 9, 15}, {Format::kToken2, 60, 64}},  // a window first: one row
               {{Format::kToken4, 0, 5}, {Format::kRaw16, 77, 1}}}};
  // Logit maps only occur with segments: a backend supports both or neither.
  if (!Takes(Format::kSegment4)) {
    for (MixedRun& run : shape.runs[0]) run.map = {};
  }
  std::erase_if(shape.runs[0], [&](const MixedRun& run) { return !Takes(run.format); });
  Check(GetParam(), *ops_, *reference_, shape, {40, 1, 1}, 2, "all formats");
}

// Decode, where a backend splits long sequences and merges the parts: every format at both head
// dims with decode kernels, one query per KV head and more, the window after and before.
TEST_P(MixedAttentionTest, DecodesOfEveryFormatAndGroup) {
  for (int dim : {64, 128}) {
    for (int f = 0; f <= static_cast<int>(Format::kKivi1);
         ++f) {  // those with kernels of their own
      const auto format = static_cast<Format>(f);
      for (int group : {1, f % 7 + 2}) {
        Check(GetParam(), *ops_, *reference_,
              {.kv_heads = 2,
               .head_dim = dim,
               .runs = {{{format, 0, 160}, {Format::kRaw16, 160, 23}},
                        {{Format::kRaw16, 3, 17}, {format, 32, 64}, {Format::kToken4, 100, 45}}}},
              {1, 1}, group,
              FormatName(format) + std::string(" dim ") + std::to_string(dim) + " group " +
                  std::to_string(group));
      }
    }
  }
}

// More heads than a device runs warps at a time, in sequences of every length. This covers the
// kernel for pages of one bit, work items that a warp takes one after the other, and more pages
// than it copies ahead.
TEST_P(MixedAttentionTest, DecodesOfManySequences) {
  const std::pair<Format, int> cases[] = {
      {Format::kToken1, 64}, {Format::kToken1, 128}, {Format::kToken2, 128}, {Format::kKivi1, 128}};
  for (const auto& [format, dim] : cases) {
    MixedCase shape{.kv_heads = 16, .head_dim = dim, .runs = {}};
    for (int s = 0; s < 72; ++s) {
      const int tokens = s % 24 == 7 ? 220 + s : 1 + s * 7 % 66;
      shape.runs.push_back(
          {{format, s % 50, FillsWholePages(format) ? (tokens + 31) / 32 * 32 : tokens}});
      if (s % 3 == 0) shape.runs.back().push_back({Format::kRaw16, 200, 1 + s % 20});
    }
    Check(GetParam(), *ops_, *reference_, shape, std::vector<int>(shape.runs.size(), 1), 1,
          FormatName(format) + std::string(" dim ") + std::to_string(dim));
  }
}

// Several rows over a compressed context: a question about it, or a prompt's chunk after it.
TEST_P(MixedAttentionTest, ExtendsOverEveryFormat) {
  for (int dim : {64, 128}) {
    for (int f = 0; f <= static_cast<int>(Format::kKivi1);
         ++f) {  // those with kernels of their own
      const auto format = static_cast<Format>(f);
      Check(GetParam(), *ops_, *reference_,
            {.kv_heads = 1,
             .head_dim = dim,
             .runs = {{{format, 0, 96}, {Format::kToken2, 96, 20}, {Format::kRaw16, 116, 40}},
                      {{format, 64, 32}, {Format::kRaw16, 0, 2}}}},
            {33, 2}, 2, FormatName(format) + std::string(" dim ") + std::to_string(dim));
    }
  }
}

// The same tokens at the same bits, in other orders of runs and divided into other runs.
TEST_P(MixedAttentionTest, OrderAndDistributionOverRunsDoNotMatter) {
  const std::vector<MixedRun> runs = {{Format::kToken2, 0, 50},
                                      {Format::kRaw16, 50, 20},
                                      {Format::kKivi2, 70, 32},
                                      {Format::kToken4, 102, 33}};
  const auto attend = [&](const std::vector<MixedRun>& order) {
    return Check(GetParam(), *ops_, *reference_, {.kv_heads = 2, .head_dim = 64, .runs = {order}},
                 {1}, 2, "runs");
  };
  const std::vector<float> first = attend(runs);
  // Both results are within their bounds of the same exact value; the bound is that of the worst
  // split.
  MixedCache cache(*ops_, {.kv_heads = 2, .head_dim = 64, .runs = {runs}}, kRule, kPool, 1, 2);
  const std::vector<float> qkv = Random(5).Normals((4 + 4) * 64, 2);
  std::vector<double> bound = MixedBounds(GetParam(), cache, qkv, 4, {0, 1});
  for (double& b : bound) b *= 2;
  std::vector<MixedRun> order = runs;
  const auto less = [](const MixedRun& a, const MixedRun& b) { return a.first < b.first; };
  while (std::next_permutation(order.begin(), order.end(), less)) {
    ExpectWithin(attend(order), first, bound, "permuted runs");
  }
  ExpectWithin(attend({{Format::kToken4, 130, 5},
                       {Format::kToken2, 0, 1},
                       {Format::kRaw16, 51, 19},
                       {Format::kToken2, 1, 49},
                       {Format::kKivi2, 70, 32},
                       {Format::kRaw16, 50, 1},
                       {Format::kToken4, 102, 28}}),
               first, bound, "runs cut otherwise");
}

TEST(MixedInvarianceTest, BitsDependOnTheRowAlone) {
  const int n = 41, heads = 6, dim = 64;  // n new rows after a compressed context
  const MixedCase shape{.kv_heads = 2,
                        .head_dim = dim,
                        .runs = {{{Format::kToken2, 0, 45},
                                  {Format::kSegment1, 150, 50, {0, 3}},
                                  {Format::kKivi4, 45, 64},
                                  {Format::kSegment1, 3, 33, {0, 3}},
                                  {Format::kToken8G32, 109, 3},
                                  {Format::kRaw16, 112, n}}}};
  const int64_t row_floats = (heads + 4) * dim;
  const std::vector<float> qkv = Random(6).Normals(n * row_floats, 2);
  std::vector<int> one_by_one;
  for (int i = 1; i <= n; ++i) one_by_one.push_back(i);
  const std::vector<std::vector<int>> chunkings = {{n}, one_by_one, {1, 17, 40, n}, {16, 32, n}};
  std::vector<float> first;
  for (const std::string& isa : CpuInstructionSets()) {
    for (int threads : {1, 3}) {
      const auto ops = MakeCpu(isa, threads);
      uint64_t shuffle = 1;
      for (const std::vector<int>& ends : chunkings) {
        MixedCache cache(*ops, shape, kRule, kPool, shuffle++, 2);
        std::vector<float> out(n * heads * dim);
        int begin = 0;
        for (int end : ends) {
          cache.TruncateLast(0, end);
          const int32_t query_begin[] = {0, end - begin};
          ops->PagedAttention(qkv.data() + begin * row_floats, query_begin, nullptr, 1, heads,
                              cache.view(), out.data() + begin * heads * dim);
          begin = end;
        }
        if (first.empty()) first = out;
        ExpectSameBits(out, first, isa + " chunks " + std::to_string(ends.size()));
      }
    }
  }
}

TEST(MixedInvarianceTest, BitsDoNotDependOnOtherSequences) {
  const int heads = 4, dim = 128;
  const MixedCase shape{.kv_heads = 2,
                        .head_dim = dim,
                        .runs = {{{Format::kToken2, 0, 45}, {Format::kRaw16, 45, 4}},
                                 {{Format::kRaw16, 60, 33}},
                                 {{Format::kKivi1, 0, 32},
                                  {Format::kSegment2, 30, 40, {0.5f, 2}},
                                  {Format::kToken4, 90, 7}}}};
  const std::vector<int32_t> begin = {0, 3, 4, 5};
  const uint8_t transformed[] = {1, 0, 1};
  const int64_t row_floats = (heads + 4) * dim;
  const std::vector<float> qkv = Random(6).Normals(5 * row_floats, 2);
  for (const std::string& isa : CpuInstructionSets()) {
    const auto ops = MakeCpu(isa, 2);
    MixedCache cache(*ops, shape, kRule, kPool, 1, 2);
    std::vector<float> together(5 * heads * dim), alone = together;
    ops->PagedAttention(qkv.data(), begin.data(), transformed, 3, heads, cache.view(),
                        together.data());
    for (int s = 0; s < 3; ++s) {
      KvLayerView view = cache.view();
      view.run_begin += s;
      const int32_t rows[] = {0, begin[s + 1] - begin[s]};
      ops->PagedAttention(qkv.data() + begin[s] * row_floats, rows, transformed + s, 1, heads, view,
                          alone.data() + begin[s] * heads * dim);
    }
    ExpectSameBits(together, alone, isa);
  }
}

TEST(MixedAttentionDeathTest, SeveralRowsNeedARaw16RunThatHoldsThem) {
  const auto ops = MakeCpu("scalar", 1);
  std::vector<float> qkv(3 * 24), out(24);
  const int32_t begin[] = {0, 3};
  for (const std::vector<MixedRun>& runs :
       {std::vector<MixedRun>{{Format::kRaw16, 0, 9}, {Format::kToken2, 9, 9}},
        std::vector<MixedRun>{{Format::kToken2, 0, 9}, {Format::kRaw16, 9, 2}}}) {
    MixedCache cache(*ops, {.kv_heads = 1, .head_dim = 8, .runs = {runs}}, kRule, 32, 1, 2);
    EXPECT_DEATH(ops->PagedAttention(qkv.data(), begin, nullptr, 1, 1, cache.view(), out.data()),
                 "check failed");
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, MixedAttentionTest, ::testing::ValuesIn(AllCpuCases()), CaseName);
INSTANTIATE_TEST_SUITE_P(Cuda, MixedAttentionTest, ::testing::ValuesIn(AllCudaCases()), CaseName);

}  // namespace
}  // namespace tessera::testing
