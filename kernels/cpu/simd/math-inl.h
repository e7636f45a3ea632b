// exp, erf and the activations over a vector type V, built from operations that round the same way
// on every instruction set. tests/kernels/math_test.cc measures the errors over all floats.
#pragma once

#include "kernels/ops.h"

namespace tessera {

template <class V>
struct Math {
  // 1.5 * 2^23: adding it rounds to an integer, which is then in the low bits.
  static constexpr float kMagic = 12582912.0f;

  // Returns e^x. Overflows to infinity, underflows gradually to zero, keeps NaN.
  static V Exp(V x) {
    x = V::Max(V::Set(-105.0f), V::Min(V::Set(89.0f), x));
    // x = n ln 2 + r, ln 2 in two parts.
    const V n = V::Sub(V::Fma(x, V::Set(0x1.715476p+0f), V::Set(kMagic)), V::Set(kMagic));
    V r = V::Fma(n, V::Set(-0x1.62e430p-1f), x);
    r = V::Fma(n, V::Set(0x1.05c610p-29f), r);
    // e^r = 1 + r + r^2 p(r): minimax on |r| <= ln 2 / 2.
    V p = V::Set(0x1.6a1a34p-10f);
    p = V::Fma(p, r, V::Set(0x1.123fcep-7f));
    p = V::Fma(p, r, V::Set(0x1.555916p-5f));
    p = V::Fma(p, r, V::Set(0x1.55548ap-3f));
    p = V::Fma(p, r, V::Set(0x1.fffffcp-2f));
    p = V::Add(V::Fma(V::Mul(r, r), p, r), V::Set(1.0f));
    // 2^n in two factors: only the last product can be subnormal, so it rounds once.
    const V t1 = V::Fma(n, V::Set(0.5f), V::Set(kMagic));
    const V t2 = V::Add(V::Sub(n, V::Sub(t1, V::Set(kMagic))), V::Set(kMagic));
    return V::Mul(V::Mul(p, V::PowerOfTwo(t1)), V::PowerOfTwo(t2));
  }

  static V Erf(V x) {
    const V a = V::Abs(x), s = V::Mul(x, x);
    // |x| < 1: x + x p(x^2), minimax in relative error.
    V p = V::Set(0x1.49699ap-14f);
    p = V::Fma(p, s, V::Set(-0x1.a3f6c6p-11f));
    p = V::Fma(p, s, V::Set(0x1.5405aap-8f));
    p = V::Fma(p, s, V::Set(-0x1.b7f90cp-6f));
    p = V::Fma(p, s, V::Set(0x1.ce2cf8p-4f));
    p = V::Fma(p, s, V::Set(-0x1.81273ep-2f));
    p = V::Fma(p, s, V::Set(0x1.06eba8p-3f));
    const V small = V::Fma(p, x, x);
    // Otherwise 1 - e^q(|x|) with q = log(erfc), up to 4, from where on erf is 1.
    const V b = V::Min(V::Set(4.0f), a);
    V q = V::Set(0x1.86e04ap-13f);
    q = V::Fma(q, b, V::Set(-0x1.825c9ep-9f));
    q = V::Fma(q, b, V::Set(0x1.65cc44p-6f));
    q = V::Fma(q, b, V::Set(-0x1.a653aap-4f));
    q = V::Fma(q, b, V::Set(-0x1.46badep-1f));
    q = V::Fma(q, b, V::Set(-0x1.2088eep+0f));
    q = V::Fma(q, b, V::Set(-0x1.660cf8p-12f));
    const V large = V::CopySign(V::Sub(V::Set(1.0f), Exp(q)), x);
    return V::SelectLess(a, V::Set(1.0f), small, large);
  }

  // x / (1 + e^(-k x)): SiLU for k = 1, quick-GELU for k = 1.702.
  static V Swish(V x, float k) {
    return V::Div(x, V::Add(V::Set(1.0f), Exp(V::Mul(V::Set(-k), x))));
  }

  static V Activate(V x, Activation act) {
    switch (act) {
      case Activation::kGelu:
        return V::Mul(V::Mul(V::Set(0.5f), x),
                      V::Add(V::Set(1.0f), Erf(V::Mul(x, V::Set(0x1.6a09e6p-1f)))));
      case Activation::kQuickGelu:
        return Swish(x, 1.702f);
      case Activation::kSilu:
        return Swish(x, 1.0f);
      case Activation::kNone:
        break;
    }
    return x;
  }
};

}  // namespace tessera
