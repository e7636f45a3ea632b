// The byte layout of a KV page. The CPU and CUDA backends and the cache share this header; no other
// file computes an offset.
//
// A page stores a fixed number of tokens of one layer for all KV heads in one format: a codec for K
// and one for V. Per KV head, four parts follow each other:
//   K codes | V codes | K meta | V meta
// Each is a multiple of 16 bytes for any head_dim that is a multiple of 8. A 32-bit PageId names a
// page: its offset from the arena's base in units of 64 bytes, which reaches 256 GiB.
//
// Codes: one row per slot with head_dim codes. At 16 bit a code is an IEEE half, because the
// low-bit kernels unpack into half and attention stays in fp16; values beyond 65504 saturate. Below
// 16 bit, unsigned codes c are packed along head_dim, the first in a byte's lowest bits. A row is
// whole bytes, so threads may write tokens of one page at the same time.
//
// Meta: half scales s, then half offsets m. A value is s * c + m, rounded once to float (s * c
// needs at most 19 bits, so a fused multiply-add gives the same). Axis kToken: one pair per slot
// and group of channels, group by group; the last group may be short. kChannel: one pair per
// channel for all slots of the page, which is therefore filled at once. kSegment: none in this
// page. A page of format kHeader has only meta: K scales, K offsets, V scales, V offsets.
#pragma once

#include <cstdint>

#include "base/base.h"
#include "kernels/layout/formats.h"

namespace tessera {

using PageId = uint32_t;
constexpr int64_t kPageUnitBytes = 64;
constexpr PageId kNoPage = 0xffffffffu;

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
// Returns the number of channels that share a token's scale.
constexpr int GroupChannels(const Codec& c, int head_dim) {
  return c.group > 0 && c.group < head_dim ? c.group : head_dim;
}
// Returns the number of scales of K or V; there are as many offsets.
constexpr int64_t Scales(Format f, int head_dim, bool value) {
  const Codec& c = CodecOf(f, value);
  if (c.axis == Axis::kChannel) return head_dim;
  return c.axis == Axis::kToken ? PageTokens(f) * CeilDiv(head_dim, GroupChannels(c, head_dim)) : 0;
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
// The offset of one token's row of codes; the byte and the shift of one channel's code in the row.
constexpr int64_t RowOffset(Format f, int head_dim, int head, bool value, int slot) {
  return CodesOffset(f, head_dim, head, value) + slot * RowBytes(CodecOf(f, value), head_dim);
}
constexpr int64_t CodeByte(int bits, int channel) { return int64_t{channel} * bits / 8; }
constexpr int CodeShift(int bits, int channel) { return channel * bits % 8; }
// The offsets of the half scale and half offset of (slot, channel). REQUIRES: the axis is kToken or
// kChannel.
constexpr int64_t ScaleOffset(Format f, int head_dim, int head, bool value, int slot, int channel) {
  const Codec& c = CodecOf(f, value);
  const int index = c.axis == Axis::kToken
                        ? channel / GroupChannels(c, head_dim) * PageTokens(f) + slot
                        : channel;
  return MetaOffset(f, head_dim, head, value) + 2 * int64_t{index};
}
constexpr int64_t OffsetOffset(Format f, int head_dim, int head, bool value, int slot,
                               int channel) {
  return ScaleOffset(f, head_dim, head, value, slot, channel) + 2 * Scales(f, head_dim, value);
}
// Returns the offset of one token's K (or V) row of one head in a RAW16 page. It does not use the
// functions above, because device code calls it with run-time values and cannot read kFormatTable.
constexpr int64_t Raw16Offset(int head_dim, int head, bool value, int slot) {
  constexpr int kTokens = PageTokens(Format::kRaw16);
  return ((int64_t{head} * 2 + (value ? 1 : 0)) * kTokens + slot) * head_dim * 2;
}
static_assert(Raw16Offset(72, 3, true, 5) == RowOffset(Format::kRaw16, 72, 3, true, 5) &&
              Raw16Offset(128, 1, false, 15) == RowOffset(Format::kRaw16, 128, 1, false, 15));

// The place of one token: a slot of a page.
struct KvSlot {
  PageId page;
  uint32_t slot;  // token index inside the page
};

// Logit calibration: how attention changes a run's logits (q k^T / sqrt(head_dim)) before softmax.
// For each query an affine map sends [min, max] to [min + raise, max - lower], where min and max
// are over all tokens of the sequence's runs with a map. The slope is clamped at 0 (CalibQuant,
// arXiv 2502.14882, tau_1, tau_2).
struct LogitMap {
  float raise = 0;
  float lower = 0;
  constexpr bool identity() const { return raise == 0 && lower == 0; }
};

// One run: the pages of one format that one layer of a sequence holds, oldest token first.
struct KvRun {
  Format format;
  int32_t first_page;       // index into the layer's page array
  int32_t tokens;           // > 0; the last page may be part-filled
  PageId header = kNoPage;  // if HasHeader(format): the page with the scales
  LogitMap map;             // identity, or the one map that the sequence's runs share
};

}  // namespace tessera
