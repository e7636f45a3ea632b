// Where every byte of a KV page lies. The CPU and CUDA backends and the cache share this header, so
// that all read and write the same bytes; no other file computes an offset.
//
// A page stores a fixed number of tokens of one layer for one head group (all KV heads) in one
// format: a codec for K and one for V. Per KV head, parts follow each other:
//   K codes | V codes | K meta | V meta
// each a multiple of 16 bytes for any head_dim that is a multiple of 8. A page is named by a 32-bit
// PageId, its offset from the arena's base in units of 64 bytes (256 GiB in reach).
//
// Codes: rows by slot, head_dim codes each. 16 bit: IEEE half. Half, not bfloat16: the low-bit
// kernels unpack into half (design: attention stays in fp16), and values beyond 65504 saturate.
// Below: unsigned codes c packed along head_dim, the first in a byte's lowest bits. A row is whole
// bytes, so tokens of one page may be written at the same time.
// Meta: half scales s, then half offsets m; a value is s * c + m, rounded once to float (s * c
// needs at most 19 bits, so a fused multiply-add gives the same). Axis kToken: one pair per slot;
// kChannel: one pair per channel, for all slots of the page, which is therefore filled at once.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>  // this header must compile in .cu files, so not Abseil's

#include "kernels/base.h"

namespace tessera {

using PageId = uint32_t;
constexpr int64_t kPageUnitBytes = 64;
constexpr PageId kNoPage = 0xffffffffu;

// What a page stores. Values index kFormatTable and are part of the kernels' interface: append
// only, at most 12 (kernels are instantiated for each).
enum class Format : uint8_t { kRaw16, kToken8, kToken4, kToken2, kToken1, kKivi4, kKivi2, kKivi1 };

enum class Axis : uint8_t { kNone, kToken, kChannel };  // what one scale and offset serve
struct Codec {
  int bits;
  Axis axis;
};
struct FormatSpec {
  const char* name;
  // 32 keeps a scale per channel at one bit a value and 1-bit units at 16 bytes. 16 where a page
  // would otherwise exceed a RAW16 page: the largest page of all decides the arena's slabs.
  int page_tokens;
  Codec k, v;
};
inline constexpr FormatSpec kFormatTable[] = {
    {"raw16", 16, {16, Axis::kNone}, {16, Axis::kNone}},
    {"token8", 16, {8, Axis::kToken}, {8, Axis::kToken}},
    {"token4", 32, {4, Axis::kToken}, {4, Axis::kToken}},
    {"token2", 32, {2, Axis::kToken}, {2, Axis::kToken}},
    {"token1", 32, {1, Axis::kToken}, {1, Axis::kToken}},
    {"kivi4", 32, {4, Axis::kChannel}, {4, Axis::kToken}},
    {"kivi2", 32, {2, Axis::kChannel}, {2, Axis::kToken}},
    {"kivi1", 32, {1, Axis::kChannel}, {1, Axis::kToken}},
};
constexpr int kNumFormats = sizeof(kFormatTable) / sizeof(kFormatTable[0]);
static_assert(kNumFormats <= 12);

constexpr const FormatSpec& SpecOf(Format f) { return kFormatTable[static_cast<int>(f)]; }
constexpr const Codec& CodecOf(Format f, bool value) { return value ? SpecOf(f).v : SpecOf(f).k; }
constexpr const char* FormatName(Format f) { return SpecOf(f).name; }
constexpr int PageTokens(Format f) { return SpecOf(f).page_tokens; }
// True where a page must be filled by one MoveTokens with all its tokens.
constexpr bool FillsWholePages(Format f) {
  return SpecOf(f).k.axis == Axis::kChannel || SpecOf(f).v.axis == Axis::kChannel;
}
constexpr std::optional<Format> FormatFromName(std::string_view name) {
  for (int i = 0; i < kNumFormats; ++i) {
    if (name == kFormatTable[i].name) return static_cast<Format>(i);
  }
  return std::nullopt;
}

// The shape of the cache of one model.
struct KvGeometry {
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;  // a multiple of 8
};

// --- sizes of the parts of one KV head ---
constexpr int64_t RowBytes(const Codec& c, int head_dim) { return int64_t{head_dim} * c.bits / 8; }
constexpr int64_t CodesBytes(Format f, int head_dim, bool value) {
  return PageTokens(f) * RowBytes(CodecOf(f, value), head_dim);
}
// Scales of a part; it has as many offsets.
constexpr int64_t Scales(Format f, int head_dim, bool value) {
  const Axis axis = CodecOf(f, value).axis;
  return axis == Axis::kNone ? 0 : axis == Axis::kToken ? PageTokens(f) : head_dim;
}
constexpr int64_t MetaBytes(Format f, int head_dim, bool value) {
  return Scales(f, head_dim, value) * 4;
}
constexpr int64_t HeadBytes(Format f, int head_dim) {
  return CodesBytes(f, head_dim, false) + CodesBytes(f, head_dim, true) +
         MetaBytes(f, head_dim, false) + MetaBytes(f, head_dim, true);
}
constexpr int64_t PageBytes(Format f, const KvGeometry& g) {
  return RoundUp(g.kv_heads * HeadBytes(f, g.head_dim), kPageUnitBytes);
}

// --- byte offsets from the page's first byte ---
constexpr int64_t CodesOffset(Format f, int head_dim, int head, bool value) {
  return head * HeadBytes(f, head_dim) + (value ? CodesBytes(f, head_dim, false) : 0);
}
constexpr int64_t MetaOffset(Format f, int head_dim, int head, bool value) {
  return head * HeadBytes(f, head_dim) + CodesBytes(f, head_dim, false) +
         CodesBytes(f, head_dim, true) + (value ? MetaBytes(f, head_dim, false) : 0);
}
// One token's row of codes, and inside the row the byte and shift of one channel's code.
constexpr int64_t RowOffset(Format f, int head_dim, int head, bool value, int slot) {
  return CodesOffset(f, head_dim, head, value) + slot * RowBytes(CodecOf(f, value), head_dim);
}
constexpr int64_t CodeByte(int bits, int channel) { return int64_t{channel} * bits / 8; }
constexpr int CodeShift(int bits, int channel) { return channel * bits % 8; }
// The half scale and offset that serve (slot, channel); axis is not kNone.
constexpr int64_t ScaleOffset(Format f, int head_dim, int head, bool value, int slot, int channel) {
  const int index = CodecOf(f, value).axis == Axis::kToken ? slot : channel;
  return MetaOffset(f, head_dim, head, value) + 2 * int64_t{index};
}
constexpr int64_t OffsetOffset(Format f, int head_dim, int head, bool value, int slot,
                               int channel) {
  return ScaleOffset(f, head_dim, head, value, slot, channel) + 2 * Scales(f, head_dim, value);
}
// RAW16: one token's K (or V) row of one head. Written out, because device code calls it with
// values known at run time and cannot read kFormatTable, which lies in host memory; it may use the
// functions above in constant expressions only.
constexpr int64_t Raw16Offset(int head_dim, int head, bool value, int slot) {
  constexpr int kTokens = PageTokens(Format::kRaw16);
  return ((int64_t{head} * 2 + (value ? 1 : 0)) * kTokens + slot) * head_dim * 2;
}
static_assert(Raw16Offset(72, 3, true, 5) == RowOffset(Format::kRaw16, 72, 3, true, 5) &&
              Raw16Offset(128, 1, false, 15) == RowOffset(Format::kRaw16, 128, 1, false, 15));

// One token of one page.
struct KvSlot {
  PageId page;
  uint32_t slot;  // token index inside the page
};

// One run: the pages of one format that one (sequence, layer) holds, oldest token first.
struct KvRun {
  Format format;
  int32_t first_page;  // index into the layer's page array
  int32_t tokens;      // > 0; the last page may be part-filled
};

}  // namespace tessera
