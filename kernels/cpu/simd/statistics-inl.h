// The arithmetic for the operations of kernels/statistics_ops.h, over a vector type V.
#pragma once

#include "kernels/cpu/simd/kernels.h"
#include "kernels/cpu/simd/rows-inl.h"

namespace tessera {

template <class V>
struct Statistics {
  static V GetHalf(const uint16_t* p, int n) {
    if (n == kLanes) return V::LoadHalf(p);
    uint16_t padded[kLanes] = {};
    std::memcpy(padded, p, n * 2);
    return V::LoadHalf(padded);
  }

  // Transforms down by decimation in frequency, multiplies where the coefficients are in
  // bit-reversed order, and transforms up by the mirror image, so nothing is ever reordered. The
  // recursion is depth first, so that the lower levels work in the nearest cache for any n.
  static void Convolve(float* z, int64_t n, const float* twiddles, const float* spectrum) {
    if (n == 1) {
      const V re = V::Load(z), im = V::Load(z + kLanes);
      const V a = V::Set(spectrum[0]), b = V::Set(spectrum[1]);
      V::Sub(V::Mul(re, a), V::Mul(im, b)).Store(z);
      V::Fma(re, b, V::Mul(im, a)).Store(z + kLanes);
      return;
    }
    const int64_t half = n / 2;
    const float* w = twiddles + 2 * half;  // e^(-2 pi i j / n), j < half
    for (int64_t j = 0; j < half; ++j) {
      float *p = z + j * 2 * kLanes, *q = p + half * 2 * kLanes;
      const V pr = V::Load(p), pi = V::Load(p + kLanes), qr = V::Load(q), qi = V::Load(q + kLanes);
      const V c = V::Set(w[2 * j]), s = V::Set(w[2 * j + 1]);
      const V dr = V::Sub(pr, qr), di = V::Sub(pi, qi);
      V::Add(pr, qr).Store(p);
      V::Add(pi, qi).Store(p + kLanes);
      V::Sub(V::Mul(dr, c), V::Mul(di, s)).Store(q);
      V::Fma(dr, s, V::Mul(di, c)).Store(q + kLanes);
    }
    Convolve(z, half, twiddles, spectrum);
    Convolve(z + half * 2 * kLanes, half, twiddles, spectrum + 2 * half);
    for (int64_t j = 0; j < half; ++j) {
      float *p = z + j * 2 * kLanes, *q = p + half * 2 * kLanes;
      const V pr = V::Load(p), pi = V::Load(p + kLanes), qr = V::Load(q), qi = V::Load(q + kLanes);
      const V c = V::Set(w[2 * j]), s = V::Set(w[2 * j + 1]);
      const V tr = V::Fma(qr, c, V::Mul(qi, s)), ti = V::Sub(V::Mul(qi, c), V::Mul(qr, s));
      V::Add(pr, tr).Store(p);
      V::Add(pi, ti).Store(p + kLanes);
      V::Sub(pr, tr).Store(q);
      V::Sub(pi, ti).Store(q + kLanes);
    }
  }

  static float SquaredDistance(const float* a, const float* b, int64_t count) {
    V sum = V::Set(0);
    Rows<V>::Groups(count, [&](int64_t i, int n) {
      const V d = V::Sub(Rows<V>::Get(a + i, n), Rows<V>::Get(b + i, n));
      sum = V::Fma(d, d, sum);
    });
    return V::ReduceSum(sum);
  }

  static void Scores(const float* q, const uint16_t* k, int64_t tokens, int64_t dim, float scale,
                     float* out) {
    for (int64_t t = 0; t < tokens; ++t, k += dim) {
      V sum = V::Set(0);
      Rows<V>::Groups(dim, [&](int64_t i, int n) {
        sum = V::Fma(Rows<V>::Get(q + i, n), GetHalf(k + i, n), sum);
      });
      out[t] = V::ReduceSum(sum) * scale;
    }
  }
};

}  // namespace tessera
