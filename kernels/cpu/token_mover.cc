#include "kernels/cpu/token_mover.h"

#include <algorithm>
#include <cstring>

#include "kernels/half.h"
#include "kernels/quantize.h"
#include "kernels/token_moves.h"

namespace tessera {
namespace {

constexpr int kMaxTokens = 32;  // of one task

constexpr bool PagesFitTasks() {
  for (const FormatSpec& spec : kFormatTable) {
    if (spec.page_tokens > kMaxTokens) return false;
  }
  return true;
}
static_assert(PagesFitTasks());

// Eight codes, one a byte, into `bits` bytes: neighbours close up, then pairs, then fours.
void PackEight(const uint8_t* codes, int bits, uint8_t* to) {
  uint64_t x;
  std::memcpy(&x, codes, 8);
  for (int width = bits, room = 8; room < 64; width *= 2, room *= 2) {
    // Fields of 2 * width bits, one in 2 * room.
    uint64_t mask = (uint64_t{1} << (2 * width)) - 1;
    for (int repeat = 2 * room; repeat < 64; repeat *= 2) mask |= mask << repeat;
    x = (x | x >> (room - width)) & mask;
  }
  std::memcpy(to, &x, bits);
}

void Put(uint8_t* to, uint16_t half) { std::memcpy(to, &half, 2); }

}  // namespace

struct TokenMover::Part {
  uint8_t* arena;
  Format format;
  int dim, head;
  bool value;
  float clip;
  bool integer_offset;
  const TokenMove* moves;
  int64_t n;

  Codec codec() const { return CodecOf(format, value); }
  const uint8_t* From(int64_t i) const {
    const KvSlot& from = moves[i].from;
    return arena + from.page * kPageUnitBytes +
           Raw16Offset(dim, head, value, static_cast<int>(from.slot));
  }
  uint8_t* Page(int64_t i) const { return arena + moves[i].to.page * kPageUnitBytes; }
  int Slot(int64_t i) const { return static_cast<int>(moves[i].to.slot); }
  uint8_t* Row(int64_t i) const { return Page(i) + RowOffset(format, dim, head, value, Slot(i)); }
  void PutAffine(int64_t i, int channel, const Affine& a) const {
    Put(Page(i) + ScaleOffset(format, dim, head, value, Slot(i), channel), a.scale);
    Put(Page(i) + OffsetOffset(format, dim, head, value, Slot(i), channel), a.offset);
  }
};

void TokenMover::Move(uint8_t* arena, const KvGeometry& geometry, Format to, const QuantRule& rule,
                      const TokenMove* moves, int64_t n) {
  CheckTokenMoves(geometry, to, rule, moves, n);
  TESSERA_CHECK(geometry.head_dim <= kMaxHeadDim);
  const int64_t step = PageTokens(to);  // where pages are filled whole, each task is one page
  pool_.ParallelFor(CeilDiv(n, step), [&](int64_t task, int) {
    const int64_t begin = task * step, tokens = std::min(step, n - begin);
    for (int head = 0; head < geometry.kv_heads; ++head) {
      for (bool value : {false, true}) {
        MovePart({arena, to, geometry.head_dim, head, value, value ? rule.clip_v : rule.clip_k,
                  rule.integer_offset, moves + begin, tokens});
      }
    }
  });
}

void TokenMover::MovePart(const Part& part) const {
  if (part.codec().axis == Axis::kNone) {
    for (int64_t i = 0; i < part.n; ++i) std::memcpy(part.Row(i), part.From(i), part.dim * 2);
    return;
  }
  alignas(64) float x[kMaxTokens * kMaxHeadDim];
  for (int64_t i = 0; i < part.n; ++i) {
    kernels_.load_half(reinterpret_cast<const uint16_t*>(part.From(i)), part.dim, x + i * part.dim);
  }
  if (part.codec().axis == Axis::kToken) {
    QuantizeTokens(part, x);
  } else {
    QuantizeChannels(part, x);
  }
}

void TokenMover::QuantizeTokens(const Part& part, const float* x) const {
  float min[kMaxTokens], max[kMaxTokens];
  kernels_.row_ranges(x, part.n, part.dim, min, max);
  for (int64_t i = 0; i < part.n; ++i) {
    const Affine a = FitAffine(min[i], max[i], part.codec().bits, part.clip, part.integer_offset);
    part.PutAffine(i, 0, a);
    const float scale = HalfToFloat(a.scale), offset = HalfToFloat(a.offset);
    StoreRow(part, i, x + i * part.dim, false, &scale, &offset);
  }
}

void TokenMover::QuantizeChannels(const Part& part, const float* x) const {
  float min[kMaxHeadDim], max[kMaxHeadDim], scales[kMaxHeadDim], offsets[kMaxHeadDim];
  kernels_.column_ranges(x, part.n, part.dim, min, max);
  for (int c = 0; c < part.dim; ++c) {
    const Affine a = FitAffine(min[c], max[c], part.codec().bits, part.clip, part.integer_offset);
    part.PutAffine(0, c, a);
    scales[c] = HalfToFloat(a.scale);
    offsets[c] = HalfToFloat(a.offset);
  }
  for (int64_t i = 0; i < part.n; ++i) {
    StoreRow(part, i, x + i * part.dim, true, scales, offsets);
  }
}

void TokenMover::StoreRow(const Part& part, int64_t move, const float* x, bool per_channel,
                          const float* scales, const float* offsets) const {
  const int bits = part.codec().bits;
  alignas(64) uint8_t codes[kMaxHeadDim];
  kernels_.quantize({.x = x,
                     .dim = part.dim,
                     .per_channel = per_channel,
                     .scales = scales,
                     .offsets = offsets,
                     .max_code = MaxCode(bits),
                     .codes = codes});
  uint8_t* row = part.Row(move);
  if (bits == 8) {
    std::memcpy(row, codes, part.dim);
    return;
  }
  for (int c = 0; c < part.dim; c += 8) PackEight(codes + c, bits, row + CodeByte(bits, c));
}

}  // namespace tessera
