// A vector of 16 floats as one AVX-512 register. See simd_scalar.h for the meaning.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/simd_fold.h"

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
  static __m256 High(__m512 a) {  // by way of double: the float form needs AVX-512DQ
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
};

}  // namespace tessera::avx512
