// The formats of KV pages: the bits of K and V, and the values that share one scale.
//
// A format is one row of kFormatTable: a codec for K and one for V. Kernels exist for the pairs of
// bits and axes, at most 12. The group (the number of channels that share a token's scale) is only
// a number in the row: the layout (page_layout.h) uses it in one place, and kernels read it at run
// time. A new group therefore needs a new row and no new kernel.
//
// Axis kSegment has one scale and offset per channel for all tokens of a segment, such as an image
// (CalibQuant, arXiv 2502.14882). They are stored in one page of format kHeader, which the run
// names. The segment's other pages have only codes.
//
// C++17 and readable by device code. Device code cannot see kFormatTable at run time, because it
// lies in host memory, and calls the functions that read it in constant expressions only.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>  // this header must compile in .cu files, so not Abseil's

namespace tessera {

// The values index kFormatTable and are part of the kernels' interface: append only.
enum class Format : uint8_t {
  kRaw16,
  kToken8,
  kToken4,
  kToken2,
  kToken1,
  kKivi4,
  kKivi2,
  kKivi1,
  kToken8G64,
  kToken8G32,
  kToken4G64,
  kToken4G32,
  kToken2G64,
  kToken2G32,
  kToken1G64,
  kToken1G32,
  kKivi4G64,
  kKivi4G32,
  kKivi2G64,
  kKivi2G32,
  kKivi1G64,
  kKivi1G32,
  kSegment4,
  kSegment2,
  kSegment1,
  kHeader,
};

// The values that share one scale and offset: a group of a token's channels (kToken), a channel
// over the page's tokens (kChannel), or a channel over the segment's tokens (kSegment).
enum class Axis : uint8_t { kNone, kToken, kChannel, kSegment };
struct Codec {
  int bits;
  Axis axis;
  int group = 0;  // kToken: channels that share a scale; 0: all of the head
};
struct FormatSpec {
  const char* name;
  // Tokens per page; 0: the page holds no tokens. With 32, a scale per channel costs one bit per
  // value and the units of 1-bit codes are 16 bytes. 16 is used where a page would otherwise be
  // larger than a RAW16 page, because the largest page decides the arena's slab size.
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
    {"token8g64", 16, {8, Axis::kToken, 64}, {8, Axis::kToken, 64}},
    {"token8g32", 16, {8, Axis::kToken, 32}, {8, Axis::kToken, 32}},
    {"token4g64", 32, {4, Axis::kToken, 64}, {4, Axis::kToken, 64}},
    {"token4g32", 32, {4, Axis::kToken, 32}, {4, Axis::kToken, 32}},
    {"token2g64", 32, {2, Axis::kToken, 64}, {2, Axis::kToken, 64}},
    {"token2g32", 32, {2, Axis::kToken, 32}, {2, Axis::kToken, 32}},
    {"token1g64", 32, {1, Axis::kToken, 64}, {1, Axis::kToken, 64}},
    {"token1g32", 32, {1, Axis::kToken, 32}, {1, Axis::kToken, 32}},
    {"kivi4g64", 32, {4, Axis::kChannel}, {4, Axis::kToken, 64}},
    {"kivi4g32", 32, {4, Axis::kChannel}, {4, Axis::kToken, 32}},
    {"kivi2g64", 32, {2, Axis::kChannel}, {2, Axis::kToken, 64}},
    {"kivi2g32", 32, {2, Axis::kChannel}, {2, Axis::kToken, 32}},
    {"kivi1g64", 32, {1, Axis::kChannel}, {1, Axis::kToken, 64}},
    {"kivi1g32", 32, {1, Axis::kChannel}, {1, Axis::kToken, 32}},
    {"segment4", 32, {4, Axis::kSegment}, {4, Axis::kSegment}},
    {"segment2", 32, {2, Axis::kSegment}, {2, Axis::kSegment}},
    {"segment1", 32, {1, Axis::kSegment}, {1, Axis::kSegment}},
    {"header", 0, {0, Axis::kChannel}, {0, Axis::kChannel}},  // scales and offsets, no codes
};
constexpr int kNumFormats = sizeof(kFormatTable) / sizeof(kFormatTable[0]);
static_assert(kNumFormats == static_cast<int>(Format::kHeader) + 1);
static_assert(kNumFormats <= 32, "a set of formats must fit into 32 bits");

constexpr const FormatSpec& SpecOf(Format f) { return kFormatTable[static_cast<int>(f)]; }
constexpr const Codec& CodecOf(Format f, bool value) { return value ? SpecOf(f).v : SpecOf(f).k; }
constexpr const char* FormatName(Format f) { return SpecOf(f).name; }
constexpr bool HoldsTokens(Format f) { return SpecOf(f).page_tokens > 0; }
constexpr int PageTokens(Format f) { return SpecOf(f).page_tokens; }
// Returns whether one MoveTokens must fill a page with all its tokens.
constexpr bool FillsWholePages(Format f) {
  return HoldsTokens(f) &&
         (SpecOf(f).k.axis == Axis::kChannel || SpecOf(f).v.axis == Axis::kChannel);
}
// Returns whether a run is one segment, which one MoveTokens writes and which names a header page.
constexpr bool HasHeader(Format f) { return SpecOf(f).k.axis == Axis::kSegment; }

constexpr std::optional<Format> FormatFromName(std::string_view name) {
  for (int i = 0; i < kNumFormats; ++i) {
    if (name == kFormatTable[i].name) return static_cast<Format>(i);
  }
  return std::nullopt;
}

// Returns the number of different pairs of (bits, axis) of K and V: each needs kernels.
constexpr int CountPairs() {
  int pairs = 0;
  for (int i = 0; i < kNumFormats; ++i) {
    const FormatSpec& a = kFormatTable[i];
    bool fresh = a.page_tokens > 0;
    for (int j = 0; j < i; ++j) {
      const FormatSpec& b = kFormatTable[j];
      fresh = fresh && !(a.k.bits == b.k.bits && a.k.axis == b.k.axis && a.v.bits == b.v.bits &&
                         a.v.axis == b.v.axis);
    }
    pairs += fresh ? 1 : 0;
  }
  return pairs;
}
static_assert(CountPairs() <= 12);

}  // namespace tessera
