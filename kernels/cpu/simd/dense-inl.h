// The dense kernels over a vector type V: register tiles, weight conversion, epilogue.
//
// For any tile, every output element is one chain of fused multiply-adds over ascending k. Any
// mixture of these functions therefore gives the same bits.
#pragma once

#include <utility>

#include "kernels/cpu/simd/kernels.h"
#include "kernels/cpu/simd/math-inl.h"

namespace tessera {

template <class V, DType D>
struct Panel {  // weights of one panel: element (k, lane) at k * 16 + lane
  static constexpr int64_t kStepBytes = kLanes * DTypeBytes(D);
  static V Load(const uint8_t* p) {
    if constexpr (D == DType::kF32) return V::Load(reinterpret_cast<const float*>(p));
    if constexpr (D == DType::kF16) return V::LoadHalf(reinterpret_cast<const uint16_t*>(p));
    if constexpr (D == DType::kBF16) return V::LoadBf16(reinterpret_cast<const uint16_t*>(p));
  }
};

template <class V>
struct Dense {
  // 32 registers hold 16 rows of one panel and its weights.
  static constexpr int kDirectRows = V::kTilePanels > 1 ? kLanes
                                     : V::kTileRows < 6 ? V::kTileRows
                                                        : 6;
  // The prefetch distance in a panel: the hardware prefetcher stops at each 4 KiB page.
  static constexpr int64_t kPrefetchBytes = 1024;

  // Computes y = act(sum + bias) + residual for up to 16 columns.
  static void Finish(const DenseCall& call, V sum, int64_t row, int64_t column) {
    const int64_t left = call.out - column;
    const int n = left < kLanes ? static_cast<int>(left) : kLanes;
    const bool whole = n == kLanes;
    if (call.bias) {
      const float* b = call.bias + column;
      sum = V::Add(sum, whole ? V::Load(b) : V::LoadPart(b, n));
    }
    sum = Math<V>::Activate(sum, call.act);
    if (call.residual) {
      const float* r = call.residual + row * call.out + column;
      sum = V::Add(sum, whole ? V::Load(r) : V::LoadPart(r, n));
    }
    float* y = call.y + row * call.out + column;
    if (whole) {
      sum.Store(y);
    } else {
      sum.StorePart(y, n);
    }
  }

  static void FinishRows(const DenseCall& call, const float* c, int64_t c_stride, int64_t row,
                         int64_t rows, int64_t begin, int64_t end) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t p = begin; p < end; ++p) {
        Finish(call, V::Load(c + r * c_stride + (p - begin) * kLanes), row + r, p * kLanes);
      }
    }
  }

  // Multiplies R rows of x with P panels over all of k and converts the weights on the way.
  template <DType D, int R, int P>
  static void DirectTile(const DenseCall& call, int64_t row, int64_t panel) {
    constexpr int64_t kStep = Panel<V, D>::kStepBytes;
    const int64_t panel_bytes = call.in * kStep;
    const uint8_t* w = call.panels + panel * panel_bytes;
    const float* x = call.x + row * call.in;
    V acc[R][P];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) acc[r][p] = V::Set(0);
    }
    const auto step = [&](int64_t k) __attribute__((always_inline)) {
      V b[P];
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) b[p] = Panel<V, D>::Load(w + p * panel_bytes + k * kStep);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const V a = V::Set(x[r * call.in + k]);
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) acc[r][p] = V::Fma(a, b[p], acc[r][p]);
      }
    };
    int64_t k = 0;
    for (; k + 2 <= call.in; k += 2) {
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) {
        const uint8_t* ahead = w + p * panel_bytes + k * kStep + kPrefetchBytes;
        __builtin_prefetch(ahead);
        if constexpr (2 * kStep > 64) __builtin_prefetch(ahead + 64);
      }
      step(k);
      step(k + 1);
    }
    if (k < call.in) step(k);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) Finish(call, acc[r][p], row + r, (panel + p) * kLanes);
    }
  }

  // Returns enough panels to hide the multiply-add's latency and few enough to stay in registers.
  template <int R>
  static constexpr int PanelsFor() {
    constexpr int kTile = V::kTileRows * V::kTilePanels;
    constexpr int kFit = kTile / R;
    constexpr int kLatency = V::kTilePanels > 1 ? 8 : 4;  // panels that fill the pipelines
    return kFit < 1 ? 1 : kFit < kLatency ? kFit : kLatency;
  }

  template <DType D, int R>
  static void DirectRows(const DenseCall& call, int64_t row, int64_t begin, int64_t end) {
    constexpr int P = PanelsFor<R>();
    int64_t p = begin;
    for (; p + P <= end; p += P) DirectTile<D, R, P>(call, row, p);
    for (; p < end; ++p) DirectTile<D, R, 1>(call, row, p);
  }

  template <DType D, int... R>
  static void DirectDispatch(const DenseCall& call, int64_t begin, int64_t end,
                             std::integer_sequence<int, R...>) {
    using RowsFn = void (*)(const DenseCall&, int64_t, int64_t, int64_t);
    static constexpr RowsFn kTable[] = {DirectRows<D, R + 1>...};
    kTable[call.rows - 1](call, 0, begin, end);
  }

  static void Direct(const DenseCall& call, int64_t begin, int64_t end) {
    constexpr auto kRows = std::make_integer_sequence<int, kDirectRows>();
    switch (call.dtype) {
      case DType::kF32:
        return DirectDispatch<DType::kF32>(call, begin, end, kRows);
      case DType::kF16:
        return DirectDispatch<DType::kF16>(call, begin, end, kRows);
      case DType::kBF16:
        return DirectDispatch<DType::kBF16>(call, begin, end, kRows);
    }
  }

  template <DType D>
  static void WidenFrom(const uint8_t* from, int64_t steps, float* out) {
    for (int64_t k = 0; k < steps; ++k) {
      __builtin_prefetch(from + k * Panel<V, D>::kStepBytes + kPrefetchBytes);
      Panel<V, D>::Load(from + k * Panel<V, D>::kStepBytes).Store(out + k * kLanes);
    }
  }

  static void Widen(const DenseCall& call, int64_t panel, int64_t k_begin, int64_t k_end,
                    float* out) {
    const uint8_t* from =
        call.panels + (panel * call.in + k_begin) * kLanes * DTypeBytes(call.dtype);
    switch (call.dtype) {
      case DType::kF32:
        return WidenFrom<DType::kF32>(from, k_end - k_begin, out);
      case DType::kF16:
        return WidenFrom<DType::kF16>(from, k_end - k_begin, out);
      case DType::kBF16:
        return WidenFrom<DType::kBF16>(from, k_end - k_begin, out);
    }
  }

  template <int R, int P>
  static void TileOf(const float* a, const float* b, int64_t b_stride, int64_t k, float* c,
                     int64_t c_stride, bool accumulate) {
    V acc[R][P];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) {
        acc[r][p] = accumulate ? V::Load(c + r * c_stride + p * kLanes) : V::Set(0);
      }
    }
    for (int64_t i = 0; i < k; ++i) {
      V w[P];
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) w[p] = V::Load(b + p * b_stride + i * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const V x = V::Set(a[r * kDenseStride + i]);
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) acc[r][p] = V::Fma(x, w[p], acc[r][p]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) acc[r][p].Store(c + r * c_stride + p * kLanes);
    }
  }

  using TileFn = void (*)(const float*, const float*, int64_t, int64_t, float*, int64_t, bool);
  template <int P, int... R>
  static TileFn TileTable(int64_t rows, std::integer_sequence<int, R...>) {
    static constexpr TileFn kTable[] = {TileOf<R + 1, P>...};
    return kTable[rows - 1];
  }

  static void Tile(const float* a, int64_t rows, const float* b, int64_t b_stride, int64_t panels,
                   int64_t k, float* c, int64_t c_stride, bool accumulate) {
    constexpr auto kRows = std::make_integer_sequence<int, V::kTileRows>();
    const TileFn tile =
        panels == 1 ? TileTable<1>(rows, kRows) : TileTable<V::kTilePanels>(rows, kRows);
    tile(a, b, b_stride, k, c, c_stride, accumulate);
  }
};

}  // namespace tessera
