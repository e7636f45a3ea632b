// Attention of a block of queries to one page, over a vector type V.
//
// The arithmetic of a query never depends on its block: each query has its own accumulators. Tiles
// of queries only serve to read K and V once.
#pragma once

#include "kernels/cpu/simd/kernels.h"
#include "kernels/cpu/simd/math-inl.h"

namespace tessera {

template <class V>
struct Attention {
  static constexpr int kTokens = PageTokens(Format::kRaw16);
  static_assert(kTokens == kLanes);
  static constexpr int kMaxTile = V::kAttendQueries;
  static constexpr float kMinusInfinity = -__builtin_inff();

  static V LoadKv(const float* p) { return V::Load(p); }
  static V LoadKv(const uint16_t* p) { return V::LoadHalf(p); }

  // Prefetches a share of the next page, so that fetches are spread over the work on this one.
  static void FetchNext(const AttendPage& a, int share, int shares) {
    const int64_t begin = a.next_bytes * share / shares, end = a.next_bytes * (share + 1) / shares;
    for (int64_t i = begin; i < end; i += 64) __builtin_prefetch(a.next + i);
  }

  // Computes sums[q][t], the lanes of q . k, for Q queries and all tokens of the page.
  template <int Q, class T>
  static void Dots(const AttendPage& a, int query, const T* k, V (*sums)[kTokens]) {
    constexpr int N = V::kAttendTokens;
    const float* q = a.q + query * a.stride;
    for (int t = 0; t < kTokens; t += N) {
      if (query == 0 && a.next) FetchNext(a, t / N, kTokens / N);
      V acc[Q][N];
#pragma GCC unroll 16
      for (int i = 0; i < Q; ++i) {
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) acc[i][n] = V::Set(0);
      }
      for (int64_t d = 0; d < a.stride; d += kLanes) {
        V keys[N];
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) keys[n] = LoadKv(k + (t + n) * a.stride + d);
#pragma GCC unroll 16
        for (int i = 0; i < Q; ++i) {
          const V query = V::Load(q + i * a.stride + d);
#pragma GCC unroll 16
          for (int n = 0; n < N; ++n) acc[i][n] = V::Fma(query, keys[n], acc[i][n]);
        }
      }
#pragma GCC unroll 16
      for (int i = 0; i < Q; ++i) {
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) sums[i][t + n] = acc[i][n];
      }
    }
  }

  static V Logits(const AttendPage& a, const V* sums) {
    return V::Mul(V::ReduceSums(sums), V::Set(a.scale));
  }

  // Online softmax of one query: rescales the sums so far when the maximum grows, and stores the
  // page's weights in p.
  static void UpdateSoftmax(const AttendPage& a, int query, int visible, const V* sums, float* p) {
    V logits = Logits(a, sums);
    if (a.slope) {
      logits = V::Fma(V::Set(a.slope[query]), V::Sub(logits, V::Set(a.low[query])),
                      V::Set(a.base[query]));
    }
    const V scores = V::SelectFirst(visible, logits, V::Set(kMinusInfinity));
    const float page_max = V::ReduceMax(scores), old_max = a.max[query];
    const float max = page_max > old_max ? page_max : old_max;
    float* sum = a.sum + query * kLanes;
    if (max != old_max) {
      const V shrink = Math<V>::Exp(V::Set(old_max - max));
      V::Mul(V::Load(sum), shrink).Store(sum);
      float* out = a.out + query * a.stride;
      for (int64_t d = 0; d < a.stride; d += kLanes) {
        V::Mul(V::Load(out + d), shrink).Store(out + d);
      }
      a.max[query] = max;
    }
    const V weights = Math<V>::Exp(V::Sub(scores, V::Set(max)));
    V::Add(V::Load(sum), weights).Store(sum);
    weights.Store(p);
  }

  // Computes out[i] += sum over the first `visible` tokens of p[i][t] v[t], for N vectors of the
  // head.
  template <int Q, int N, class T>
  static void WeighSpan(const AttendPage& a, int query, int visible, const float (*p)[kTokens],
                        const T* v, int64_t d) {
    V acc[Q][N];
    float* out = a.out + query * a.stride + d;
#pragma GCC unroll 16
    for (int i = 0; i < Q; ++i) {
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) acc[i][n] = V::Load(out + i * a.stride + n * kLanes);
    }
    for (int t = 0; t < visible; ++t) {
      V values[N];
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) values[n] = LoadKv(v + t * a.stride + d + n * kLanes);
#pragma GCC unroll 16
      for (int i = 0; i < Q; ++i) {
        const V weight = V::Set(p[i][t]);
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) acc[i][n] = V::Fma(weight, values[n], acc[i][n]);
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < Q; ++i) {
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) acc[i][n].Store(out + i * a.stride + n * kLanes);
    }
  }

  template <int Q, class T>
  static void Weigh(const AttendPage& a, int query, int visible, const float (*p)[kTokens],
                    const T* v) {
    constexpr int N = V::kAttendVectors;
    int64_t d = 0;
    for (; d + N * kLanes <= a.stride; d += N * kLanes) {
      WeighSpan<Q, N>(a, query, visible, p, v, d);
    }
    for (; d < a.stride; d += kLanes) WeighSpan<Q, 1>(a, query, visible, p, v, d);
  }

  template <int Q, class T>
  static void Tile(const AttendPage& a, int query, const T* k, const T* v) {
    alignas(64) V sums[Q][kTokens];
    alignas(64) float p[Q][kTokens];
    const int32_t* visible = a.visible + query;
    bool same = true;
    for (int i = 1; i < Q; ++i) same = same && visible[i] == visible[0];
    if (same && visible[0] == 0) return;
    Dots<Q>(a, query, k, sums);
    for (int i = 0; i < Q; ++i) {
      if (visible[i] > 0) UpdateSoftmax(a, query + i, visible[i], sums[i], p[i]);
    }
    if (same) return Weigh<Q>(a, query, visible[0], p, v);
    // The page on the diagonal: a token that a query does not see must not even be added as zero.
    for (int i = 0; i < Q; ++i) Weigh<1>(a, query + i, visible[i], p + i, v);
  }

  template <class T>
  static void Queries(const AttendPage& a, const T* k, const T* v) {
    int query = 0;
    for (; query + kMaxTile <= a.queries; query += kMaxTile) Tile<kMaxTile>(a, query, k, v);
    for (; query < a.queries; ++query) Tile<1>(a, query, k, v);
  }

  template <int Q, class T>
  static void RangeTile(const AttendPage& a, int query, const T* k, float* low, float* high) {
    alignas(64) V sums[Q][kTokens];
    Dots<Q>(a, query, k, sums);
    const V infinity = V::Set(-kMinusInfinity), zero = V::Set(0);
    for (int i = query; i < query + Q; ++i) {
      if (a.visible[i] == 0) continue;
      const V logits = Logits(a, sums[i - query]);
      // The minimum is minus the maximum of the negated values.
      const V negated = V::Sub(zero, V::SelectFirst(a.visible[i], logits, infinity));
      const float min = -V::ReduceMax(negated);
      const float max = V::ReduceMax(V::SelectFirst(a.visible[i], logits, V::Set(kMinusInfinity)));
      low[i] = min < low[i] ? min : low[i];
      high[i] = max > high[i] ? max : high[i];
    }
  }

  template <class T>
  static void Ranges(const AttendPage& a, const T* k, float* low, float* high) {
    int query = 0;
    for (; query + kMaxTile <= a.queries; query += kMaxTile) {
      RangeTile<kMaxTile>(a, query, k, low, high);
    }
    for (; query < a.queries; ++query) RangeTile<1>(a, query, k, low, high);
  }

  static void Range(const AttendPage& a, float* low, float* high) {
    if (a.k_half) {
      Ranges(a, a.k_half, low, high);
    } else {
      Ranges(a, a.k_float, low, high);
    }
  }

  static void Page(const AttendPage& a) {
    if (a.k_half) {
      Queries(a, a.k_half, a.v_half);
    } else {
      Queries(a, a.k_float, a.v_float);
    }
  }

  static void Finish(const float* sums, const float* lanes, int64_t count, float* out) {
    const V total = V::Set(V::ReduceSum(V::Load(lanes)));
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) V::Div(V::Load(sums + i), total).Store(out + i);
    if (i < count) {
      const int n = static_cast<int>(count - i);
      V::Div(V::LoadPart(sums + i, n), total).StorePart(out + i, n);
    }
  }
};

}  // namespace tessera
