// A vector of 16 floats as one AVX-512 register. See simd_scalar.h for the meaning.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/simd/simd_fold.h"

namespace tessera::avx512 {

struct V {
  __m512 v;

  static constexpr int kTileRows = 12, kTilePanels = 2;
  static constexpr int kAttendQueries = 4, kAttendTokens = 4, kAttendVectors = 4;

  static V Set(float x) { return {_mm512_set1_ps(x)}; }
  static V Load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static __mmask16 FirstLanes(int n) { return static_cast<__mmask16>((1u << n) - 1); }
  static V LoadPart(const float* p, int n) { return {_mm512_maskz_loadu_ps(FirstLanes(n), p)}; }
  static __m256i Raw(const uint16_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static V LoadBf16(const uint16_t* p) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(Raw(p)), 16))};
  }
  static V LoadHalf(const uint16_t* p) { return {_mm512_cvtph_ps(Raw(p))}; }
  void Store(float* p) const { _mm512_storeu_ps(p, v); }
  void StorePart(float* p, int n) const { _mm512_mask_storeu_ps(p, FirstLanes(n), v); }
  void StoreHalf(uint16_t* p) const {
    const V s = Max(Set(-65504.0f), Min(Set(65504.0f), *this));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(s.v, _MM_FROUND_TO_NEAREST_INT));
  }

  static V Add(V a, V b) { return {_mm512_add_ps(a.v, b.v)}; }
  static V Sub(V a, V b) { return {_mm512_sub_ps(a.v, b.v)}; }
  static V Mul(V a, V b) { return {_mm512_mul_ps(a.v, b.v)}; }
  static V Div(V a, V b) { return {_mm512_div_ps(a.v, b.v)}; }
  static V Fma(V a, V b, V c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  static V Max(V a, V b) { return {_mm512_max_ps(a.v, b.v)}; }
  static V Min(V a, V b) { return {_mm512_min_ps(a.v, b.v)}; }
  static V Abs(V a) {
    return {_mm512_castsi512_ps(
        _mm512_and_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(0x7fffffff)))};
  }
  static V CopySign(V magnitude, V s) {
    const __m512i sign = _mm512_set1_epi32(static_cast<int>(0x80000000u));
    return {_mm512_castsi512_ps(
        _mm512_or_si512(_mm512_andnot_si512(sign, _mm512_castps_si512(magnitude.v)),
                        _mm512_and_si512(sign, _mm512_castps_si512(s.v))))};
  }
  static V SelectLess(V a, V b, V x, V y) {
    return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
  }
  static V SelectFirst(int n, V a, V b) { return {_mm512_mask_blend_ps(FirstLanes(n), b.v, a.v)}; }
  static V PowerOfTwo(V t) {
    return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_slli_epi32(_mm512_castps_si512(t.v), 23),
                                                 _mm512_set1_epi32(0x3f800000)))};
  }
  static __m256 Low(__m512 a) { return _mm512_castps512_ps256(a); }
  static __m256 High(__m512 a) {  // as doubles, because the float form needs AVX-512DQ
    return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1));
  }
  static float ReduceMax(V a) { return FoldMax<V>(_mm256_max_ps(Low(a.v), High(a.v))); }
  static float ReduceSum(V a) { return FoldSum<V>(_mm256_add_ps(Low(a.v), High(a.v))); }
  static V ReduceSums(const V* rows) {
    __m256 s[16];
    for (int i = 0; i < 16; ++i) s[i] = _mm256_add_ps(Low(rows[i].v), High(rows[i].v));
    const __m512d low = _mm512_castpd256_pd512(_mm256_castps_pd(FoldSums<V>(s)));
    return {_mm512_castpd_ps(_mm512_insertf64x4(low, _mm256_castps_pd(FoldSums<V>(s + 8)), 1))};
  }
  template <int S>
  static V Butterfly(V a) {
    __m512 t;
    if constexpr (S == 1) t = _mm512_permute_ps(a.v, _MM_SHUFFLE(2, 3, 0, 1));
    if constexpr (S == 2) t = _mm512_permute_ps(a.v, _MM_SHUFFLE(1, 0, 3, 2));
    if constexpr (S == 4) t = _mm512_shuffle_f32x4(a.v, a.v, _MM_SHUFFLE(2, 3, 0, 1));
    if constexpr (S == 8) t = _mm512_shuffle_f32x4(a.v, a.v, _MM_SHUFFLE(1, 0, 3, 2));
    constexpr __mmask16 kUpper = S == 1 ? 0xaaaa : S == 2 ? 0xcccc : S == 4 ? 0xf0f0 : 0xff00;
    return {_mm512_mask_sub_ps(_mm512_add_ps(a.v, t), kUpper, t, a.v)};
  }
  static __m512i Iota() {
    return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  }
  // Returns vectors whose lane i has code i in its lowest bits and other codes above.
  template <int B>
  static __m512i Shifted(const uint8_t* p) {
    if constexpr (B == 8) {
      return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    } else if constexpr (B == 4) {
      const __m512i words =
          _mm512_castsi128_si512(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
      const __m512i word = _mm512_permutexvar_epi32(_mm512_srli_epi32(Iota(), 3), words);
      return _mm512_srlv_epi32(
          word, _mm512_slli_epi32(_mm512_and_si512(Iota(), _mm512_set1_epi32(7)), 2));
    } else {
      uint32_t word = 0;
      __builtin_memcpy(&word, p, 2 * B);
      return _mm512_srlv_epi32(_mm512_set1_epi32(static_cast<int>(word)),
                               _mm512_mullo_epi32(Iota(), _mm512_set1_epi32(B)));
    }
  }
  template <int B>
  static V Codes(const uint8_t* p) {
    return {_mm512_cvtepi32_ps(_mm512_and_si512(Shifted<B>(p), _mm512_set1_epi32((1 << B) - 1)))};
  }
  template <int B>
  static V CodeTable() {
    return {_mm512_cvtepi32_ps(_mm512_and_si512(Iota(), _mm512_set1_epi32((1 << B) - 1)))};
  }
  template <int B>
  static V Lookup(V table, const uint8_t* p) {  // the permutation reads four bits of each lane
    return {_mm512_permutexvar_ps(Shifted<B>(p), table.v)};
  }
  void StoreBytes(uint8_t* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
  }
};

}  // namespace tessera::avx512
