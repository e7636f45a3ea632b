// Tests the layout of pages: exact bytes, every offset, and codes that read back.
#include <cstring>

#include "base/half.h"
#include "kernels/host/host_memory.h"
#include "kernels/layout/page_layout.h"
#include "kernels/layout/quantize.h"
#include "tests/kernels/test_util.h"

namespace tessera::testing {
namespace {

std::vector<Format> AllFormats() {
  std::vector<Format> all;
  for (int i = 0; i < kNumFormats; ++i) all.push_back(static_cast<Format>(i));
  return all;
}

TEST(FormatsTest, BytesOfOneHeadOf128) {
  const auto codes = [](Format f) { return CodesBytes(f, 128, false) + CodesBytes(f, 128, true); };
  const auto meta = [](Format f) { return MetaBytes(f, 128, false) + MetaBytes(f, 128, true); };
  struct Row {
    Format format;
    int tokens;
    int64_t codes, meta;
  };
  const Row rows[] = {
      {Format::kRaw16, 16, 8192, 0},
      {Format::kToken8, 16, 4096, 128},
      {Format::kToken4, 32, 4096, 256},
      {Format::kToken2, 32, 2048, 256},
      {Format::kToken1, 32, 1024, 256},
      {Format::kKivi4, 32, 4096, 512 + 128},
      {Format::kKivi2, 32, 2048, 640},
      {Format::kKivi1, 32, 1024, 640},
      // Two and four groups per head have as many times the scales of a token.
      {Format::kToken8G64, 16, 4096, 256},
      {Format::kToken8G32, 16, 4096, 512},
      {Format::kToken4G64, 32, 4096, 512},
      {Format::kToken4G32, 32, 4096, 1024},
      {Format::kToken2G64, 32, 2048, 512},
      {Format::kToken2G32, 32, 2048, 1024},
      {Format::kToken1G64, 32, 1024, 512},
      {Format::kToken1G32, 32, 1024, 1024},
      {Format::kKivi4G64, 32, 4096, 768},
      {Format::kKivi4G32, 32, 4096, 1024},
      {Format::kKivi2G64, 32, 2048, 768},
      {Format::kKivi2G32, 32, 2048, 1024},
      {Format::kKivi1G64, 32, 1024, 768},
      {Format::kKivi1G32, 32, 1024, 1024},
      {Format::kSegment4, 32, 4096, 0},
      {Format::kSegment2, 32, 2048, 0},
      {Format::kSegment1, 32, 1024, 0},
      {Format::kHeader, 0, 0, 1024},
  };
  ASSERT_EQ(std::size(rows), static_cast<size_t>(kNumFormats));
  for (const Row& row : rows) {
    EXPECT_EQ(PageTokens(row.format), row.tokens) << FormatName(row.format);
    EXPECT_EQ(codes(row.format), row.codes) << FormatName(row.format);
    EXPECT_EQ(meta(row.format), row.meta) << FormatName(row.format);
    EXPECT_EQ(HeadBytes(row.format, 128), row.codes + row.meta) << FormatName(row.format);
  }
}

TEST(FormatsTest, BytesPerTokenOfLlava7B) {
  const KvGeometry llava = {.layers = 32, .kv_heads = 32, .head_dim = 128};
  const std::pair<Format, int64_t> expected[] = {{Format::kRaw16, 524288},
                                                 {Format::kToken8, 270336},
                                                 {Format::kToken4, 139264},
                                                 {Format::kToken2, 73728},
                                                 {Format::kToken1, 40960}};
  for (const auto& [format, bytes] : expected) {
    EXPECT_EQ(llava.layers * PageBytes(format, llava), bytes * PageTokens(format))
        << FormatName(format);
  }
  // KIVI with groups of 32 keys has 3 bits per key; values per token of 128 have 2.25.
  EXPECT_EQ(8.0 * PageBytes(Format::kKivi2, llava) / (32 * 32 * 128 * 2), (3 + 2.25) / 2);
  // As published, with groups of 32 channels for values too: 3 bits for both.
  EXPECT_EQ(8.0 * PageBytes(Format::kKivi2G32, llava) / (32 * 32 * 128 * 2), 3);
  // CalibQuant's 1 + 32 / n bits over an image of n = 576 tokens.
  const int64_t image = 576 / 32 * PageBytes(Format::kSegment1, llava);
  EXPECT_DOUBLE_EQ(8.0 * (image + PageBytes(Format::kHeader, llava)) / (576 * 32 * 128 * 2),
                   1 + 32.0 / 576);
}

TEST(FormatsTest, TheBytesOfHeadWideFormatsAreFrozen) {
  // Fixed offsets that other backends were written against, at head 2 of 128 channels.
  constexpr int kDim = 128;
  struct Row {
    Format format;
    int64_t k_row, v_row, k_scale, k_offset, v_scale, v_offset;  // at slot 5, channel 7
  };
  const Row rows[] = {
      {Format::kToken8, 9088, 11136, 12554, 12586, 12618, 12650},
      {Format::kToken4, 9024, 11072, 12810, 12874, 12938, 13002},
      {Format::kToken2, 4768, 5792, 6666, 6730, 6794, 6858},
      {Format::kToken1, 2640, 3152, 3594, 3658, 3722, 3786},
      {Format::kKivi4, 9792, 11840, 13582, 13838, 14090, 14154},
      {Format::kKivi2, 5536, 6560, 7438, 7694, 7946, 8010},
      {Format::kKivi1, 3408, 3920, 4366, 4622, 4874, 4938},
  };
  for (const Row& row : rows) {
    const Format f = row.format;
    EXPECT_EQ(RowOffset(f, kDim, 2, false, 5), row.k_row) << FormatName(f);
    EXPECT_EQ(RowOffset(f, kDim, 2, true, 5), row.v_row) << FormatName(f);
    EXPECT_EQ(ScaleOffset(f, kDim, 2, false, 5, 7), row.k_scale) << FormatName(f);
    EXPECT_EQ(OffsetOffset(f, kDim, 2, false, 5, 7), row.k_offset) << FormatName(f);
    EXPECT_EQ(ScaleOffset(f, kDim, 2, true, 5, 7), row.v_scale) << FormatName(f);
    EXPECT_EQ(OffsetOffset(f, kDim, 2, true, 5, 7), row.v_offset) << FormatName(f);
  }
}

TEST(FormatsTest, NamesAreUniqueAndReadBack) {
  for (Format f : AllFormats()) EXPECT_EQ(FormatFromName(FormatName(f)), f);
  for (const char* name : {"", "raw", "raw166", "token3", "KIVI2"}) {
    EXPECT_EQ(FormatFromName(name), std::nullopt) << name;
  }
}

// Every byte of a head belongs to exactly one part, parts are aligned, and none reaches outside.
TEST(FormatsTest, PartsTileThePage) {
  for (Format f : AllFormats()) {
    for (int dim = 8; dim <= 256; dim += 8) {
      const KvGeometry g = {.layers = 1, .kv_heads = 3, .head_dim = dim};
      EXPECT_EQ(PageBytes(f, g) % kPageUnitBytes, 0);
      std::vector<int> owners(PageBytes(f, g));
      for (int head = 0; head < g.kv_heads; ++head) {
        for (bool value : {false, true}) {
          const Codec& codec = CodecOf(f, value);
          const int64_t codes = CodesOffset(f, dim, head, value);
          EXPECT_EQ(codes % 16, 0);
          EXPECT_EQ(CodesBytes(f, dim, value) % 16, 0);
          EXPECT_EQ(MetaOffset(f, dim, head, value) % 16, 0);
          EXPECT_EQ(MetaBytes(f, dim, value) % 16, 0);
          for (int slot = 0; slot < PageTokens(f); ++slot) {
            const int64_t row = RowOffset(f, dim, head, value, slot);
            for (int64_t i = 0; i < RowBytes(codec, dim); ++i) ++owners.at(row + i);
          }
          for (int64_t i = 0; i < Scales(f, dim, value); ++i) {
            const bool token = codec.axis == Axis::kToken;
            const int slot = token ? static_cast<int>(i) % PageTokens(f) : 5;
            const int channel =
                token ? static_cast<int>(i) / PageTokens(f) * GroupChannels(codec, dim)
                      : static_cast<int>(i);
            for (int64_t at : {ScaleOffset(f, dim, head, value, slot, channel),
                               OffsetOffset(f, dim, head, value, slot, channel)}) {
              ++owners.at(at);
              ++owners.at(at + 1);
            }
          }
        }
      }
      const int64_t used = g.kv_heads * HeadBytes(f, dim);
      for (int64_t i = 0; i < PageBytes(f, g); ++i) {
        ASSERT_EQ(owners[i], i < used ? 1 : 0) << FormatName(f) << " dim " << dim << " byte " << i;
      }
    }
  }
}

class PackTest : public BackendTest {};

// One page of format f, filled by MoveTokens from RAW16 pages after it, and a header page at the
// end. The values are codes: with 0 .. 2^b - 1 as values, s is 1 and m is 0, and the bytes are
// known without the layout's functions for codes.
struct PackedPage {
  Format f;
  int dim;
  KvGeometry g;
  int64_t low_bytes, raw_bytes, header_at;
  Buffer arena;

  PackedPage(Format format, int head_dim)
      : f(format),
        dim(head_dim),
        g{.layers = 1, .kv_heads = 2, .head_dim = head_dim},
        low_bytes(PageBytes(f, g)),
        raw_bytes(PageBytes(Format::kRaw16, g)),
        header_at(low_bytes + PageTokens(f) / PageTokens(Format::kRaw16) * raw_bytes),
        arena(AllocateHost(header_at + PageBytes(Format::kHeader, g))) {}
  int Code(int head, bool value, int slot, int channel) const {
    const Codec& codec = CodecOf(f, value);
    const int max = MaxCode(codec.bits);
    const bool per_token = codec.axis == Axis::kToken;
    // Each vector has both 0 and the largest code.
    const int along = per_token ? channel % GroupChannels(codec, dim) : slot;
    if (along < 2) return along == 0 ? 0 : max;
    return (7 * slot + 3 * channel + 11 * head + (value ? 5 : 0)) % (max + 1);
  }
  void Fill(Ops& ops) {
    const int tokens = PageTokens(f), raw = PageTokens(Format::kRaw16);
    const PageId header = HasHeader(f) ? static_cast<PageId>(header_at / kPageUnitBytes) : kNoPage;
    std::vector<TokenMove> moves;
    for (int t = 0; t < tokens; ++t) {
      const auto page = static_cast<PageId>((low_bytes + t / raw * raw_bytes) / kPageUnitBytes);
      for (int i = 0; i < 2 * g.kv_heads * dim; ++i) {
        const int head = i / dim / 2, channel = i % dim;
        const bool value = i / dim % 2 == 1;
        const uint16_t bits = FloatToHalf(static_cast<float>(Code(head, value, t, channel)));
        std::memcpy(arena.get() + page * kPageUnitBytes + Raw16Offset(dim, head, value, t % raw) +
                        2 * channel,
                    &bits, 2);
      }
      moves.push_back(
          {{page, static_cast<uint32_t>(t % raw)}, {0, static_cast<uint32_t>(t)}, header});
    }
    ops.MoveTokens(arena.get(), g, f, {}, moves.data(), tokens);
  }
  // Checks the codes of K or V of one head, which begin at `p`; returns their end.
  const uint8_t* CheckCodes(const uint8_t* p, int head, bool value) const {
    const int bits = CodecOf(f, value).bits;
    const int64_t all = int64_t{PageTokens(f)} * dim * bits;
    for (int64_t bit = 0; bit < all; bit += bits) {
      const int slot = static_cast<int>(bit / bits / dim);
      const int channel = static_cast<int>(bit / bits % dim),
                code = Code(head, value, slot, channel);
      EXPECT_EQ((p[bit / 8] >> (bit % 8)) & MaxCode(bits), code)
          << FormatName(f) << " dim " << dim << " slot " << slot << " channel " << channel;
      EXPECT_EQ(
          PageElement(arena.get(), f, dim, head, value, slot, channel, arena.get() + header_at),
          code);
      if (::testing::Test::HasFailure()) break;
    }
    return p + all / 8;
  }
};

TEST_P(PackTest, EveryCodeAtEveryPosition) {
  for (Format f : AllFormats()) {
    if (f == Format::kRaw16 || !Takes(f)) continue;
    for (int dim : {8, 24, 40, 64, 128}) {
      PackedPage page(f, dim);
      page.Fill(*ops_);
      const uint8_t* p = page.arena.get();  // head 0 K, head 0 V, head 0 meta, head 1 ...
      for (int head = 0; head < page.g.kv_heads; ++head) {
        for (bool value : {false, true}) p = page.CheckCodes(p, head, value);
        if (HasFailure()) return;
        for (bool value : {false, true}) {
          const int64_t n = Scales(f, dim, value);
          for (int64_t i = 0; i < 2 * n; ++i, p += 2) {
            ASSERT_EQ(HalfToFloat(LoadHalfBits(p)), i < n ? 1 : 0);
          }
        }
      }
      p = page.arena.get() + page.header_at;  // scales then offsets: K's, V's, the next head's
      for (int i = 0; HasHeader(f) && i < page.g.kv_heads * 4 * dim; ++i, p += 2) {
        ASSERT_EQ(HalfToFloat(LoadHalfBits(p)), i / dim % 2 == 0 ? 1 : 0);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, PackTest, ::testing::ValuesIn(AllCpuCases()), CaseName);
INSTANTIATE_TEST_SUITE_P(Cuda, PackTest, ::testing::ValuesIn(AllCudaCases()), CaseName);

}  // namespace
}  // namespace tessera::testing
