// A vector of 16 floats in plain C++. It defines the semantics that simd_avx2.h and simd_avx512.h
// must match.
//
// Every SIMD header defines one type V with these operations, and only one kernels_<isa>.cc
// includes it. They must not share inline functions with other files: the linker could keep the
// copy that was compiled for a newer machine. That is why all the kernels' code is templates over
// V.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/half.h"

namespace tessera::scalar {

struct V {
  float v[16];

  // The register tiles of dense_tile (rows x panels) and of attention (queries x tokens, and
  // vectors of out at once).
  static constexpr int kTileRows = 4, kTilePanels = 1;
  static constexpr int kAttendQueries = 2, kAttendTokens = 2, kAttendVectors = 2;

  template <class F>
  static V Make(const F& f) {
    V r;
    for (int i = 0; i < 16; ++i) r.v[i] = f(i);
    return r;
  }
  static uint16_t Bits(const uint16_t* p, int i) {
    uint16_t b;
    std::memcpy(&b, p + i, 2);
    return b;
  }

  static V Set(float x) {
    return Make([&](int) { return x; });
  }
  static V Load(const float* p) { return LoadPart(p, 16); }
  // Loads the first n elements (n <= 16), with zeros after them; reads nothing else.
  static V LoadPart(const float* p, int n) {
    V r = Set(0);
    std::memcpy(r.v, p, n * 4);
    return r;
  }
  static V LoadBf16(const uint16_t* p) {
    return Make([&](int i) { return BFloat16ToFloat(Bits(p, i)); });
  }
  static V LoadHalf(const uint16_t* p) {
    return Make([&](int i) { return HalfToFloat(Bits(p, i)); });
  }
  void Store(float* p) const { StorePart(p, 16); }
  void StorePart(float* p, int n) const { std::memcpy(p, v, n * 4); }
  // Rounds half to even and saturates at 65504; NaN stays NaN.
  void StoreHalf(uint16_t* p) const {
    for (int i = 0; i < 16; ++i) {
      const uint16_t b = FloatToHalf(v[i]);
      std::memcpy(p + i, &b, 2);
    }
  }

  static V Add(V a, V b) {
    return Make([&](int i) { return a.v[i] + b.v[i]; });
  }
  static V Sub(V a, V b) {
    return Make([&](int i) { return a.v[i] - b.v[i]; });
  }
  static V Mul(V a, V b) {
    return Make([&](int i) { return a.v[i] * b.v[i]; });
  }
  static V Div(V a, V b) {
    return Make([&](int i) { return a.v[i] / b.v[i]; });
  }
  static V Fma(V a, V b, V c) {  // a * b + c with one rounding
    return Make([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
  }
  // Return b if either is NaN, as the machine's instructions do.
  static V Max(V a, V b) {
    return Make([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  static V Min(V a, V b) {
    return Make([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
  }
  static V Abs(V a) {
    return Make([&](int i) { return std::fabs(a.v[i]); });
  }
  static V CopySign(V magnitude, V sign) {
    return Make([&](int i) { return std::copysign(magnitude.v[i], sign.v[i]); });
  }
  // a < b ? x : y
  static V SelectLess(V a, V b, V x, V y) {
    return Make([&](int i) { return a.v[i] < b.v[i] ? x.v[i] : y.v[i]; });
  }
  // Returns lanes below n from a, the others from b.
  static V SelectFirst(int n, V a, V b) {
    return Make([&](int i) { return i < n ? a.v[i] : b.v[i]; });
  }
  // Returns 2^n for t = n + 1.5 * 2^23, n an integer in [-126, 127].
  static V PowerOfTwo(V t) {
    return Make([&](int i) {
      return std::bit_cast<float>((std::bit_cast<uint32_t>(t.v[i]) << 23) + 0x3f800000u);
    });
  }
  static float ReduceMax(V a) {
    float m = a.v[0];
    for (int i = 1; i < 16; ++i) m = a.v[i] > m ? a.v[i] : m;
    return m;
  }
  // Adds the lanes as a tree: l with l + 8, then + 4, + 2, + 1.
  static float ReduceSum(V a) {
    for (int width = 8; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i) a.v[i] += a.v[i + width];
    }
    return a.v[0];
  }
  // Returns ReduceSum(rows[i]) in lane i.
  static V ReduceSums(const V* rows) {
    return Make([&](int i) { return ReduceSum(rows[i]); });
  }
  // For lanes i without bit S: returns a[i] + a[i + S] in lane i and the difference in lane i + S.
  template <int S>
  static V Butterfly(V a) {
    return Make([&](int i) { return i & S ? a.v[i ^ S] - a.v[i] : a.v[i] + a.v[i ^ S]; });
  }
  // Loads 16 codes of B bits each from p (reads 2 B bytes), the first in the lowest bits.
  template <int B>
  static int Code(const uint8_t* p, int i) {
    return (p[i * B / 8] >> (i * B % 8)) & ((1 << B) - 1);
  }
  template <int B>
  static V Codes(const uint8_t* p) {
    return Make([&](int i) { return static_cast<float>(Code<B>(p, i)); });
  }
  // Returns i modulo 2^B (B <= 4) in lane i: a table of all codes. Lookup returns table[code].
  template <int B>
  static V CodeTable() {
    return Make([](int i) { return static_cast<float>(i % (1 << B)); });
  }
  template <int B>
  static V Lookup(V table, const uint8_t* p) {
    return Make([&](int i) { return table.v[Code<B>(p, i)]; });
  }
  // Stores lanes in [0, 255] as bytes, rounded half to even.
  void StoreBytes(uint8_t* p) const {
    for (int i = 0; i < 16; ++i) p[i] = static_cast<uint8_t>((v[i] + 0x1p23f) - 0x1p23f);
  }
};

}  // namespace tessera::scalar
