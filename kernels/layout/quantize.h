// The affine quantizer of all low-bit formats, and the value that a page holds.
//
// Every backend gives the same bits as these functions. They compute in float32, in this order:
//   lo = clip * min, hi = clip * max, s = (hi - lo) / (2^b - 1),
//   m = lo, or with an integer offset s * round(lo / s),
//   c = round(clamp((x - m) / s, 0, 2^b - 1)).
// Every operation is rounded by itself: no fused a * b + c, division and no reciprocal, round half
// to even. s is rounded to half before m is computed, and m before the codes. The codes are
// therefore the nearest on the stored grid, not on the grid before rounding.
//
// The integer offset is AKVQ's c = clamp(round(x / s) + z), m = -s z, except for the rounding of m
// and for ties (AKVQ-VL, arXiv 2501.15021). The real offset is KIVI's rule (arXiv 2402.02750).
//
// min and max are taken after the `quantile` share of the vector's n values is cut off at either
// end. They are order statistics, number Trimmed(n, quantile) from the smallest and from the
// largest; nothing is interpolated (the quantile range of CalibQuant's first version). Quantile 0
// gives the plain min and max.
//
// If s is zero in half (above all if hi = lo), the vector stores s = 1, m = min unclipped, codes 0.
// Minus zero counts as zero. If a value is NaN, the vector's bits are unspecified.
//
// CUDA's files are C++17 and cannot include base/half.h: kernels/cuda/kv/move_tokens.cuh has the
// same rule for the device.
#pragma once

#include <cstdint>

#include "base/half.h"
#include "kernels/layout/page_layout.h"

namespace tessera {

// How MoveTokens computes scales. A clip ratio shrinks the range of a vector; 1 keeps it.
struct QuantRule {
  float clip_k = 1;
  float clip_v = 1;
  bool integer_offset = false;
  float quantile = 0;  // in [0, 0.5)
};

struct Affine {  // half bits, as stored
  uint16_t scale;
  uint16_t offset;
};

// Returns how many of n values are cut off at either end.
constexpr int64_t Trimmed(int64_t n, float quantile) {
  return static_cast<int64_t>(double{quantile} * static_cast<double>(n - 1));
}

constexpr int MaxCode(int bits) { return (1 << bits) - 1; }

constexpr float RoundHalfEven(float x) {
  const float magnitude = x < 0 ? -x : x;
  if (!(magnitude < 0x1p23f)) return x;  // already an integer, or NaN
  const float rounded = (magnitude + 0x1p23f) - 0x1p23f;
  return x < 0 ? -rounded : rounded;
}

constexpr Affine FitAffine(float min, float max, int bits, float clip, bool integer_offset) {
  min += 0.0f;  // -0 becomes 0, so that the order of the values has no effect
  const float lo = clip * min, hi = clip * max;
  const uint16_t scale = FloatToHalf((hi - lo) / static_cast<float>(MaxCode(bits)));
  const float s = HalfToFloat(scale);
  if (!(s > 0)) return {FloatToHalf(1.0f), FloatToHalf(min)};
  return {scale, FloatToHalf(integer_offset ? s * RoundHalfEven(lo / s) : lo)};
}

constexpr int AffineCode(float x, float scale, float offset, int bits) {
  const float max = static_cast<float>(MaxCode(bits));
  const float steps = (x - offset) / scale;
  return static_cast<int>(RoundHalfEven(steps > 0 ? (steps < max ? steps : max) : 0));
}

constexpr uint16_t LoadHalfBits(const uint8_t* p) {
  return static_cast<uint16_t>(p[0] | (p[1] << 8));
}

// Returns one element of a page in any format. `header` is its segment's header page, if there is
// one.
constexpr float PageElement(const uint8_t* page, Format f, int head_dim, int head, bool value,
                            int slot, int channel, const uint8_t* header = nullptr) {
  const Codec& codec = CodecOf(f, value);
  const uint8_t* code =
      page + RowOffset(f, head_dim, head, value, slot) + CodeByte(codec.bits, channel);
  if (codec.axis == Axis::kNone) return HalfToFloat(LoadHalfBits(code));
  const int c = (*code >> CodeShift(codec.bits, channel)) & MaxCode(codec.bits);
  const uint8_t* meta = HasHeader(f) ? header : page;
  const Format of = HasHeader(f) ? Format::kHeader : f;
  const auto half = [meta](int64_t at) { return HalfToFloat(LoadHalfBits(meta + at)); };
  const float s = half(ScaleOffset(of, head_dim, head, value, slot, channel));
  const float m = half(OffsetOffset(of, head_dim, head, value, slot, channel));
  return s * static_cast<float>(c) + m;
}

}  // namespace tessera
