#include "kernels/cpu/token_mover.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/half.h"
#include "kernels/host/token_moves.h"
#include "kernels/layout/quantize.h"

namespace tessera {
namespace {

constexpr int kMaxTokens = 32;  // per page

constexpr bool PagesFit() {
  for (const FormatSpec& spec : kFormatTable) {
    if (spec.page_tokens > kMaxTokens) return false;
  }
  return true;
}
static_assert(PagesFit());

// Packs eight codes of one byte each into `bits` bytes: first neighbours move together, then pairs,
// then fours.
void PackEight(const uint8_t* codes, int bits, uint8_t* to) {
  uint64_t x;
  std::memcpy(&x, codes, 8);
  for (int width = bits, room = 8; room < 64; width *= 2, room *= 2) {
    // Masks fields of 2 * width bits, one per 2 * room bits.
    uint64_t mask = (uint64_t{1} << (2 * width)) - 1;
    for (int repeat = 2 * room; repeat < 64; repeat *= 2) mask |= mask << repeat;
    x = (x | x >> (room - width)) & mask;
  }
  std::memcpy(to, &x, bits);
}

void PackRow(const uint8_t* codes, int dim, int bits, uint8_t* row) {
  if (bits == 8) {
    std::memcpy(row, codes, dim);
    return;
  }
  for (int c = 0; c < dim; c += 8) PackEight(codes + c, bits, row + CodeByte(bits, c));
}

// Returns the first move of each task, and n at the end. If pages are filled whole, a task is one
// page.
std::vector<int64_t> Tasks(Format to, const TokenMove* moves, int64_t n) {
  std::vector<int64_t> begins;
  for (int64_t i = 0; i < n;) {
    begins.push_back(i);
    i = HasHeader(to) ? SegmentEnd(moves, i, n) : std::min<int64_t>(n, i + PageTokens(to));
  }
  begins.push_back(n);
  return begins;
}

}  // namespace

struct TokenMover::Part {
  uint8_t* arena;
  Format format;
  int dim, head;
  bool value;
  float clip;
  const QuantRule& rule;
  const TokenMove* moves;
  int64_t n;

  Codec codec() const { return CodecOf(format, value); }
  uint8_t* At(PageId page) const { return arena + page * kPageUnitBytes; }
  int Slot(int64_t i) const { return static_cast<int>(moves[i].to.slot); }
  const uint8_t* From(int64_t i) const {
    const KvSlot& from = moves[i].from;
    return At(from.page) + Raw16Offset(dim, head, value, static_cast<int>(from.slot));
  }
  uint8_t* Row(int64_t i) const {
    return At(moves[i].to.page) + RowOffset(format, dim, head, value, Slot(i));
  }
  // Fits the quantizer to a group's range and stores scale and offset for move i's token.
  Affine Fit(const Range& range, int64_t i, int channel) const {
    const Affine a = FitAffine(range.min, range.max, codec().bits, clip, rule.integer_offset);
    uint8_t* page = At(HasHeader(format) ? moves[i].header : moves[i].to.page);
    const Format of = HasHeader(format) ? Format::kHeader : format;
    std::memcpy(page + ScaleOffset(of, dim, head, value, Slot(i), channel), &a.scale, 2);
    std::memcpy(page + OffsetOffset(of, dim, head, value, Slot(i), channel), &a.offset, 2);
    return a;
  }
  // Returns the range of n values, `stride` apart, without the share that the rule cuts off.
  Range Trim(const float* x, int64_t n_values, int64_t stride) const {
    std::vector<float> values(n_values);
    for (int64_t i = 0; i < n_values; ++i) values[i] = x[i * stride];
    const int64_t trimmed = Trimmed(n_values, rule.quantile);
    const auto low = values.begin() + trimmed, high = values.end() - 1 - trimmed;
    std::nth_element(values.begin(), low, values.end());
    const float min = *low;
    std::nth_element(values.begin(), high, values.end());
    return {min, *high};
  }
};

void TokenMover::Move(uint8_t* arena, const KvGeometry& geometry, Format to, const QuantRule& rule,
                      const TokenMove* moves, int64_t n) {
  CheckTokenMoves(geometry, to, rule, moves, n);
  TESSERA_CHECK(geometry.head_dim <= kMaxHeadDim);
  const std::vector<int64_t> begins = Tasks(to, moves, n);
  const int64_t heads = geometry.kv_heads;
  pool_.ParallelFor((static_cast<int64_t>(begins.size()) - 1) * heads, [&](int64_t task, int) {
    const int64_t begin = begins[task / heads], end = begins[task / heads + 1];
    for (bool value : {false, true}) {
      MovePart({arena, to, geometry.head_dim, static_cast<int>(task % heads), value,
                value ? rule.clip_v : rule.clip_k, rule, moves + begin, end - begin});
    }
  });
}

void TokenMover::MovePart(const Part& part) const {
  if (part.codec().axis == Axis::kNone) {
    for (int64_t i = 0; i < part.n; ++i) std::memcpy(part.Row(i), part.From(i), part.dim * 2);
    return;
  }
  alignas(64) float page[kMaxTokens * kMaxHeadDim];
  std::vector<float> segment;
  if (part.n > kMaxTokens) segment.resize(part.n * part.dim);
  float* x = part.n > kMaxTokens ? segment.data() : page;
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
  alignas(64) uint8_t codes[kMaxHeadDim];
  const int group = GroupChannels(part.codec(), part.dim);
  for (int64_t i = 0; i < part.n; ++i, x += part.dim) {
    for (int c = 0; c < part.dim; c += group) {
      const int width = std::min(group, part.dim - c);
      Range range;
      if (Trimmed(width, part.rule.quantile) > 0) {
        range = part.Trim(x + c, width, 1);
      } else {
        kernels_.row_ranges(x + c, 1, width, &range.min, &range.max);
      }
      const Affine a = part.Fit(range, i, c);
      const float scale = HalfToFloat(a.scale), offset = HalfToFloat(a.offset);
      Quantize(part, x + c, width, false, &scale, &offset, codes + c);
    }
    PackRow(codes, part.dim, part.codec().bits, part.Row(i));
  }
}

void TokenMover::QuantizeChannels(const Part& part, const float* x) const {
  alignas(64) uint8_t codes[kMaxHeadDim];
  float min[kMaxHeadDim], max[kMaxHeadDim], scales[kMaxHeadDim], offsets[kMaxHeadDim];
  const bool trims = Trimmed(part.n, part.rule.quantile) > 0;
  if (!trims) kernels_.column_ranges(x, part.n, part.dim, min, max);
  for (int c = 0; c < part.dim; ++c) {
    const Range range = trims ? part.Trim(x + c, part.n, part.dim) : Range{min[c], max[c]};
    const Affine a = part.Fit(range, 0, c);
    scales[c] = HalfToFloat(a.scale);
    offsets[c] = HalfToFloat(a.offset);
  }
  for (int64_t i = 0; i < part.n; ++i) {
    Quantize(part, x + i * part.dim, part.dim, true, scales, offsets, codes);
    PackRow(codes, part.dim, part.codec().bits, part.Row(i));
  }
}

void TokenMover::Quantize(const Part& part, const float* x, int n, bool per_channel,
                          const float* scales, const float* offsets, uint8_t* codes) const {
  kernels_.quantize({.x = x,
                     .dim = n,
                     .per_channel = per_channel,
                     .scales = scales,
                     .offsets = offsets,
                     .max_code = MaxCode(part.codec().bits),
                     .codes = codes});
}

}  // namespace tessera
