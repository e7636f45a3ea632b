// Norms, SwiGLU, rotation and half conversion of one row over a vector type V.
#pragma once

#include <cstring>

#include "kernels/cpu/simd/dense-inl.h"
#include "kernels/cpu/simd/math-inl.h"

namespace tessera {

template <class V>
struct Rows {
  // Calls f(offset, n) for each group of up to 16 elements; n is 16 except in the last group.
  template <class F>
  static void Groups(int64_t cols, const F& f) {
    int64_t i = 0;
    for (; i + kLanes <= cols; i += kLanes) f(i, kLanes);
    if (i < cols) f(i, static_cast<int>(cols - i));
  }
  static V Get(const float* p, int n) { return n == kLanes ? V::Load(p) : V::LoadPart(p, n); }
  static void Put(V v, float* p, int n) {
    if (n == kLanes) {
      v.Store(p);
    } else {
      v.StorePart(p, n);
    }
  }

  template <DType D>
  static void EmbedFrom(const uint8_t* from, int64_t cols, float* out) {
    constexpr int64_t kBytes = DTypeBytes(D);
    Groups(cols, [&](int64_t i, int n) {
      if (n == kLanes) return Panel<V, D>::Load(from + i * kBytes).Store(out + i);
      uint8_t padded[kLanes * kBytes] = {};
      std::memcpy(padded, from + i * kBytes, n * kBytes);
      Panel<V, D>::Load(padded).StorePart(out + i, n);
    });
  }

  static void Embed(const void* from, DType dtype, int64_t cols, float* out) {
    const auto* p = static_cast<const uint8_t*>(from);
    switch (dtype) {
      case DType::kF32:
        return EmbedFrom<DType::kF32>(p, cols, out);
      case DType::kF16:
        return EmbedFrom<DType::kF16>(p, cols, out);
      case DType::kBF16:
        return EmbedFrom<DType::kBF16>(p, cols, out);
    }
  }

  static void RmsNorm(const float* x, const float* w, int64_t cols, float eps, float* y) {
    V squares = V::Set(0);
    Groups(cols, [&](int64_t i, int n) {
      const V v = Get(x + i, n);
      squares = V::Fma(v, v, squares);
    });
    const float mean = V::ReduceSum(squares) / static_cast<float>(cols);
    const V scale = V::Set(1.0f / __builtin_sqrtf(mean + eps));
    Groups(cols, [&](int64_t i, int n) {
      Put(V::Mul(V::Mul(Get(x + i, n), scale), Get(w + i, n)), y + i, n);
    });
  }

  static void LayerNorm(const float* x, const float* w, const float* b, int64_t cols, float eps,
                        float* y) {
    V sum = V::Set(0);
    Groups(cols, [&](int64_t i, int n) { sum = V::Add(sum, Get(x + i, n)); });
    const V mean = V::Set(V::ReduceSum(sum) / static_cast<float>(cols));
    V squares = V::Set(0);
    Groups(cols, [&](int64_t i, int n) {
      const V d = V::SelectFirst(n, V::Sub(Get(x + i, n), mean), V::Set(0));
      squares = V::Fma(d, d, squares);
    });
    const float variance = V::ReduceSum(squares) / static_cast<float>(cols);
    const V scale = V::Set(1.0f / __builtin_sqrtf(variance + eps));
    Groups(cols, [&](int64_t i, int n) {
      const V d = V::Mul(V::Sub(Get(x + i, n), mean), scale);
      Put(V::Fma(d, Get(w + i, n), Get(b + i, n)), y + i, n);
    });
  }

  static void SwiGlu(const float* gate, const float* up, int64_t cols, float* y) {
    Groups(cols, [&](int64_t i, int n) {
      const V silu = Math<V>::Activate(Get(gate + i, n), Activation::kSilu);
      Put(V::Mul(silu, Get(up + i, n)), y + i, n);
    });
  }

  static void Activate(const float* x, int64_t count, Activation act, float* y) {
    Groups(count, [&](int64_t i, int n) { Put(Math<V>::Activate(Get(x + i, n), act), y + i, n); });
  }

  static void Exp(const float* x, int64_t count, float* y) {
    Groups(count, [&](int64_t i, int n) { Put(Math<V>::Exp(Get(x + i, n)), y + i, n); });
  }
  static void Erf(const float* x, int64_t count, float* y) {
    Groups(count, [&](int64_t i, int n) { Put(Math<V>::Erf(Get(x + i, n)), y + i, n); });
  }

  // Rounds products and sums one by one, as the published models do.
  static void Rope(float* head, const float* cos, const float* sin, int64_t half_dim) {
    Groups(half_dim, [&](int64_t i, int n) {
      const V a = Get(head + i, n), b = Get(head + half_dim + i, n);
      const V c = Get(cos + i, n), s = Get(sin + i, n);
      Put(V::Sub(V::Mul(a, c), V::Mul(b, s)), head + i, n);
      Put(V::Add(V::Mul(b, c), V::Mul(a, s)), head + half_dim + i, n);
    });
  }

  static void Hadamard(float* x, int64_t count, float scale) {
    Groups(count, [&](int64_t i, int n) {
      V v = Get(x + i, n);
      if (count > 1) v = V::template Butterfly<1>(v);
      if (count > 2) v = V::template Butterfly<2>(v);
      if (count > 4) v = V::template Butterfly<4>(v);
      if (count > 8) v = V::template Butterfly<8>(v);
      Put(v, x + i, n);
    });
    for (int64_t step = kLanes; step < count; step *= 2) {
      for (int64_t i = 0; i < count; i += kLanes) {
        if (i & step) continue;
        const V a = V::Load(x + i), b = V::Load(x + i + step);
        V::Add(a, b).Store(x + i);
        V::Sub(a, b).Store(x + i + step);
      }
    }
    Groups(count, [&](int64_t i, int n) { Put(V::Mul(Get(x + i, n), V::Set(scale)), x + i, n); });
  }

  static void StoreHalf(const float* from, int64_t count, uint16_t* to) {
    Groups(count, [&](int64_t i, int n) {
      if (n == kLanes) return V::Load(from + i).StoreHalf(to + i);
      uint16_t padded[kLanes];
      V::LoadPart(from + i, n).StoreHalf(padded);
      std::memcpy(to + i, padded, n * 2);
    });
  }

  static void LoadHalf(const uint16_t* from, int64_t count, float* to) {
    Groups(count, [&](int64_t i, int n) {
      if (n == kLanes) return V::LoadHalf(from + i).Store(to + i);
      uint16_t padded[kLanes] = {};
      std::memcpy(padded, from + i, n * 2);
      V::LoadHalf(padded).StorePart(to + i, n);
    });
  }
};

}  // namespace tessera
