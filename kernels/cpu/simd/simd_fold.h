// Sums and maxima over the 8 lanes of AVX registers, in the tree order that kernels.h promises.
// They are templates over the vector type, so that each instruction set has its own copies.
#pragma once

#include <immintrin.h>

namespace tessera {

template <class V>
inline float FoldMax(__m256 a) {
  const __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 n = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(n, _mm_movehdup_ps(n)));
}

template <class V>
inline float FoldSum(__m256 a) {
  const __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 t = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(t, _mm_movehdup_ps(t)));
}

// Returns FoldSum(rows[i]) in lane i: a transposition whose every step also adds.
template <class V>
inline __m256 FoldSums(const __m256* rows) {
  // Lane + 4: p[i] holds row i in its low half and row i + 4 in its high half.
  __m256 p[4];
  for (int i = 0; i < 4; ++i) {
    p[i] = _mm256_add_ps(_mm256_permute2f128_ps(rows[i], rows[i + 4], 0x20),
                         _mm256_permute2f128_ps(rows[i], rows[i + 4], 0x31));
  }
  // Lane + 2: rows i and i + 1 side by side in each half.
  const __m256 q01 = _mm256_add_ps(_mm256_shuffle_ps(p[0], p[1], _MM_SHUFFLE(1, 0, 1, 0)),
                                   _mm256_shuffle_ps(p[0], p[1], _MM_SHUFFLE(3, 2, 3, 2)));
  const __m256 q23 = _mm256_add_ps(_mm256_shuffle_ps(p[2], p[3], _MM_SHUFFLE(1, 0, 1, 0)),
                                   _mm256_shuffle_ps(p[2], p[3], _MM_SHUFFLE(3, 2, 3, 2)));
  // Lane + 1.
  return _mm256_add_ps(_mm256_shuffle_ps(q01, q23, _MM_SHUFFLE(2, 0, 2, 0)),
                       _mm256_shuffle_ps(q01, q23, _MM_SHUFFLE(3, 1, 3, 1)));
}

}  // namespace tessera
