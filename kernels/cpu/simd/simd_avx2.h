// A vector of 16 floats as two AVX2 registers. See simd_scalar.h for the meaning.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/simd/simd_fold.h"

namespace tessera::avx2 {

struct V {
  __m256 lo, hi;

  static constexpr int kTileRows = 6, kTilePanels = 1;
  static constexpr int kAttendQueries = 2, kAttendTokens = 2, kAttendVectors = 2;

  static V Set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static V Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static __m256i FirstLanes(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static V LoadPart(const float* p, int n) {
    return {_mm256_maskload_ps(p, FirstLanes(n)), _mm256_maskload_ps(p + 8, FirstLanes(n - 8))};
  }
  static __m256 Widen(__m128i bf16) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bf16), 16));
  }
  static __m128i Raw(const uint16_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  static V LoadBf16(const uint16_t* p) { return {Widen(Raw(p)), Widen(Raw(p + 8))}; }
  static V LoadHalf(const uint16_t* p) {
    return {_mm256_cvtph_ps(Raw(p)), _mm256_cvtph_ps(Raw(p + 8))};
  }
  void Store(float* p) const {
    _mm256_storeu_ps(p, lo);
    _mm256_storeu_ps(p + 8, hi);
  }
  void StorePart(float* p, int n) const {
    _mm256_maskstore_ps(p, FirstLanes(n), lo);
    _mm256_maskstore_ps(p + 8, FirstLanes(n - 8), hi);
  }
  void StoreHalf(uint16_t* p) const {
    const V s = Max(Set(-65504.0f), Min(Set(65504.0f), *this));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm256_cvtps_ph(s.lo, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8),
                     _mm256_cvtps_ph(s.hi, _MM_FROUND_TO_NEAREST_INT));
  }

  static V Add(V a, V b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
  static V Sub(V a, V b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
  static V Mul(V a, V b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
  static V Div(V a, V b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
  static V Fma(V a, V b, V c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
  }
  static V Max(V a, V b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
  static V Min(V a, V b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
  static V Abs(V a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
  }
  static V CopySign(V magnitude, V s) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const V m = Abs(magnitude);
    return {_mm256_or_ps(m.lo, _mm256_and_ps(sign, s.lo)),
            _mm256_or_ps(m.hi, _mm256_and_ps(sign, s.hi))};
  }
  static V SelectLess(V a, V b, V x, V y) {
    return {_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
            _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
  }
  static V SelectFirst(int n, V a, V b) {
    return {_mm256_blendv_ps(b.lo, a.lo, _mm256_castsi256_ps(FirstLanes(n))),
            _mm256_blendv_ps(b.hi, a.hi, _mm256_castsi256_ps(FirstLanes(n - 8)))};
  }
  static __m256 PowerOfTwoHalf(__m256 t) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(t), 23),
                                                _mm256_set1_epi32(0x3f800000)));
  }
  static V PowerOfTwo(V t) { return {PowerOfTwoHalf(t.lo), PowerOfTwoHalf(t.hi)}; }
  static float ReduceMax(V a) { return FoldMax<V>(_mm256_max_ps(a.lo, a.hi)); }
  static float ReduceSum(V a) { return FoldSum<V>(_mm256_add_ps(a.lo, a.hi)); }
  static V ReduceSums(const V* rows) {
    __m256 s[16];
    for (int i = 0; i < 16; ++i) s[i] = _mm256_add_ps(rows[i].lo, rows[i].hi);
    return {FoldSums<V>(s), FoldSums<V>(s + 8)};
  }
  template <int S>
  static __m256 ButterflyHalf(__m256 a) {
    __m256 t;
    if constexpr (S == 1) t = _mm256_permute_ps(a, _MM_SHUFFLE(2, 3, 0, 1));
    if constexpr (S == 2) t = _mm256_permute_ps(a, _MM_SHUFFLE(1, 0, 3, 2));
    if constexpr (S == 4) t = _mm256_permute2f128_ps(a, a, 1);
    constexpr int kUpper = S == 1 ? 0xaa : S == 2 ? 0xcc : 0xf0;
    return _mm256_blend_ps(_mm256_add_ps(a, t), _mm256_sub_ps(t, a), kUpper);
  }
  template <int S>
  static V Butterfly(V a) {
    if constexpr (S == 8) {
      return {_mm256_add_ps(a.lo, a.hi), _mm256_sub_ps(a.lo, a.hi)};
    } else {
      return {ButterflyHalf<S>(a.lo), ButterflyHalf<S>(a.hi)};
    }
  }
  struct Indices {  // lane i has code i in its lowest bits, other codes above
    __m256i lo, hi;
  };
  template <int B>
  static Indices Shifted(const uint8_t* p) {
    const __m256i iota = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    if constexpr (B == 8) {
      const auto* from = reinterpret_cast<const __m128i*>(p);
      return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(from)),
              _mm256_cvtepu8_epi32(_mm_srli_si128(_mm_loadu_si128(from), 8))};
    } else {
      uint64_t word = 0;
      __builtin_memcpy(&word, p, 2 * B);
      const __m256i shifts = _mm256_mullo_epi32(iota, _mm256_set1_epi32(B));
      return {_mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(word)), shifts),
              _mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(word >> (8 * B))), shifts)};
    }
  }
  template <int B>
  static V Codes(const uint8_t* p) {
    const Indices i = Shifted<B>(p);
    const __m256i mask = _mm256_set1_epi32((1 << B) - 1);
    return {_mm256_cvtepi32_ps(_mm256_and_si256(i.lo, mask)),
            _mm256_cvtepi32_ps(_mm256_and_si256(i.hi, mask))};
  }
  template <int B>
  static V CodeTable() {
    const __m256i iota = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i mask = _mm256_set1_epi32((1 << B) - 1);
    return {
        _mm256_cvtepi32_ps(_mm256_and_si256(iota, mask)),
        _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_add_epi32(iota, _mm256_set1_epi32(8)), mask))};
  }
  // The permutation reads three bits of each lane. The fourth bit of 4-bit codes selects the half.
  template <int B>
  static __m256 LookupHalf(V table, __m256i index) {
    const __m256 low = _mm256_permutevar8x32_ps(table.lo, index);
    if constexpr (B < 4) return low;
    return _mm256_blendv_ps(low, _mm256_permutevar8x32_ps(table.hi, index),
                            _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
  }
  template <int B>
  static V Lookup(V table, const uint8_t* p) {
    const Indices i = Shifted<B>(p);
    return {LookupHalf<B>(table, i.lo), LookupHalf<B>(table, i.hi)};
  }
  void StoreBytes(uint8_t* p) const {
    const __m256i words = _mm256_packus_epi32(_mm256_cvtps_epi32(lo), _mm256_cvtps_epi32(hi));
    const __m256i ordered = _mm256_permute4x64_epi64(words, _MM_SHUFFLE(3, 1, 2, 0));
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(p),
        _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1)));
  }
};

}  // namespace tessera::avx2
