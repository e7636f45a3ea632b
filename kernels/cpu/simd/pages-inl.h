// Converts codes of low-bit pages to floats and back, over a vector type V.
#pragma once

#include "kernels/cpu/simd/kernels.h"
#include "kernels/cpu/simd/rows-inl.h"

namespace tessera {

template <class V>
struct Pages {
  // Calls f(channel, codes, n) for groups of up to 16 channels of a row of B-bit codes. 16 codes
  // are readable at `codes`.
  template <int B, class F>
  static void Groups(const uint8_t* row, int64_t dim, const F& f) {
    Rows<V>::Groups(dim, [&](int64_t d, int n) {
      const uint8_t* codes = row + d * B / 8;
      if (n == kLanes) return f(d, codes, n);
      uint8_t padded[2 * B] = {};
      std::memcpy(padded, codes, n * B / 8);
      f(d, padded, n);
    });
  }

  template <int B>
  static void PerToken(const DequantizeCall& c) {
    alignas(64) float scales[kLanes], offsets[kLanes];
    V::LoadHalf(c.scales).Store(scales);
    V::LoadHalf(c.offsets).Store(offsets);
    for (int t = 0; t < c.tokens; ++t) {
      const V scale = V::Set(scales[t]), offset = V::Set(offsets[t]);
      float* out = c.out + t * c.stride;
      const uint8_t* row = c.codes + t * c.row_bytes;
      if constexpr (B <= 4) {  // few codes: compute a table of all values first
        const V table = V::Fma(V::template CodeTable<B>(), scale, offset);
        Groups<B>(row, c.dim, [&](int64_t d, const uint8_t* codes, int n) {
          Rows<V>::Put(V::template Lookup<B>(table, codes), out + d, n);
        });
      } else {
        Groups<B>(row, c.dim, [&](int64_t d, const uint8_t* codes, int n) {
          Rows<V>::Put(V::Fma(V::template Codes<B>(codes), scale, offset), out + d, n);
        });
      }
    }
  }

  template <int B>
  static void PerChannel(const DequantizeCall& c) {
    alignas(64) float scales[kMaxHeadDim], offsets[kMaxHeadDim];
    Rows<V>::LoadHalf(c.scales, c.dim, scales);
    Rows<V>::LoadHalf(c.offsets, c.dim, offsets);
    for (int t = 0; t < c.tokens; ++t) {
      float* out = c.out + t * c.stride;
      Groups<B>(c.codes + t * c.row_bytes, c.dim, [&](int64_t d, const uint8_t* codes, int n) {
        const V scale = Rows<V>::Get(scales + d, n), offset = Rows<V>::Get(offsets + d, n);
        Rows<V>::Put(V::Fma(V::template Codes<B>(codes), scale, offset), out + d, n);
      });
    }
  }

  template <int B>
  static void DequantizeBits(const DequantizeCall& c) {
    if (c.per_channel) {
      PerChannel<B>(c);
    } else {
      PerToken<B>(c);
    }
  }

  static void Dequantize(const DequantizeCall& c) {
    switch (c.bits) {
      case 8:
        return DequantizeBits<8>(c);
      case 4:
        return DequantizeBits<4>(c);
      case 2:
        return DequantizeBits<2>(c);
      default:
        return DequantizeBits<1>(c);
    }
  }

  static void Quantize(const QuantizeCall& c) {
    const V max = V::Set(static_cast<float>(c.max_code)), zero = V::Set(0);
    Rows<V>::Groups(c.dim, [&](int64_t d, int n) {
      // Lanes beyond n may divide by zero; they are not used.
      const V scale = c.per_channel ? Rows<V>::Get(c.scales + d, n) : V::Set(c.scales[0]);
      const V offset = c.per_channel ? Rows<V>::Get(c.offsets + d, n) : V::Set(c.offsets[0]);
      const V steps = V::Div(V::Sub(Rows<V>::Get(c.x + d, n), offset), scale);
      V::Min(V::Max(steps, zero), max).StoreBytes(c.codes + d);  // NaN becomes 0
    });
  }

  static void ColumnRanges(const float* x, int64_t rows, int64_t cols, float* min, float* max) {
    Rows<V>::Groups(cols, [&](int64_t c, int n) {
      V low = Rows<V>::Get(x + c, n), high = low;
      for (int64_t r = 1; r < rows; ++r) {
        const V v = Rows<V>::Get(x + r * cols + c, n);
        low = V::Min(v, low);
        high = V::Max(v, high);
      }
      Rows<V>::Put(low, min + c, n);
      Rows<V>::Put(high, max + c, n);
    });
  }

  static void RowRanges(const float* x, int64_t rows, int64_t cols, float* min, float* max) {
    for (int64_t r = 0; r < rows; ++r, x += cols) {
      V low = V::Set(x[0]), high = low;
      Rows<V>::Groups(cols, [&](int64_t c, int n) {
        const V v = V::SelectFirst(n, Rows<V>::Get(x + c, n), high);
        low = V::Min(n == kLanes ? v : V::SelectFirst(n, v, low), low);
        high = V::Max(v, high);
      });
      min[r] = -V::ReduceMax(V::Sub(V::Set(0), low));
      max[r] = V::ReduceMax(high);
    }
  }
};

}  // namespace tessera
