// Where every byte of a KV page lies. The CPU and CUDA backends and the cache share this header, so
// that all read and write the same bytes.
//
// A page stores a fixed number of tokens of one layer for one head group (all KV heads) in one
// format. Per KV head, parts follow each other: K codes | V codes | K meta | V meta; each part is a
// multiple of 16 bytes. A page is named by a 32-bit PageId, its offset from the arena's base in
// units of 64 bytes (256 GiB in reach).
//
// RAW16: K [page_tokens, head_dim] then V [page_tokens, head_dim], IEEE half, rows by slot. Half,
// not bfloat16: the low-bit kernels unpack into half (design: attention stays in fp16), and values
// beyond 65504 saturate.
#pragma once

#include <cstdint>

#include "kernels/base.h"

namespace tessera {

using PageId = uint32_t;
constexpr int64_t kPageUnitBytes = 64;
constexpr PageId kNoPage = 0xffffffffu;

// What a page stores. Values are part of the kernels' interface: append only.
enum class Format : uint8_t { kRaw16 = 0 };
constexpr int kNumFormats = 1;
constexpr const char* FormatName(Format) { return "raw16"; }
constexpr int PageTokens(Format) { return 16; }

// The shape of the cache of one model.
struct KvGeometry {
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;  // a multiple of 8
};

constexpr int64_t HeadBytes(Format f, int head_dim) {
  return 2 * int64_t{PageTokens(f)} * head_dim * 2;
}
constexpr int64_t PageBytes(Format f, const KvGeometry& g) {
  return RoundUp(g.kv_heads * HeadBytes(f, g.head_dim), kPageUnitBytes);
}

// RAW16: byte offset, from the page's first byte, of one token's K (or V) row of one head.
constexpr int64_t Raw16Offset(int head_dim, int head, bool value, int slot) {
  constexpr int kTokens = PageTokens(Format::kRaw16);
  return ((int64_t{head} * 2 + (value ? 1 : 0)) * kTokens + slot) * head_dim * 2;
}

// Where one new token's K and V go.
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
