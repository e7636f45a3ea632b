// Attention of up to eight queries of one KV head over pages of one format, by one warp on tensor
// cores. Rows of K are one input and queries the other, so unpacking costs the same for one query
// as for eight.
//
// Scales and offsets are not applied to the codes. Per token: a score is s (q . c) + m sum(q), and
// an output is the sum of weights times s times codes, plus the sum of weights times m. Per
// channel: K's scales are multiplied into q, page by page.
//
// Lane l is (g, t) = (l / 4, l % 4) in the tensor cores' layouts. It has a quarter of K's channels
// for token rows g and g + 8, in an order of its own, which q follows. It has V's channels
// dim / 8 * g .. of four tokens. Row r of 16 tokens is token 8 (r / 8) + 4 (r % 2) + r % 8 / 2, so
// that rows that lanes read at the same time are neighbours.
#pragma once

#include <type_traits>

#include "kernels/cuda/attention/decode/page_ring.cuh"
#include "kernels/cuda/attention/decode/tensor_keys.cuh"
#include "kernels/cuda/attention/decode/tensor_sums.cuh"

namespace tessera::cuda {

// The pages of one run, one at a time, in the registers of a warp.
template <Format kFormat, int kDim, int kColumns>
struct TensorPages {
  static constexpr Codec kKey = CodecOf(kFormat, false), kValue = CodecOf(kFormat, true);
  static constexpr bool kRaw = kFormat == Format::kRaw16;
  static constexpr bool kPerChannel = kKey.axis == Axis::kChannel;
  static constexpr int kTokens = PageTokens(kFormat), kBlocks = kTokens / 16;
  static constexpr int kValueBytes = kDim / 8 * kValue.bits / 8,
                       kValueWords = (kValueBytes + 3) / 4;
  static constexpr int kTiles = kDim / 16;
  static constexpr int64_t kHeadBytes = HeadBytes(kFormat, kDim);
  static constexpr int64_t kKeyRow = RowBytes(kKey, kDim), kValueRow = RowBytes(kValue, kDim);
  static constexpr int64_t kValueCodes = CodesOffset(kFormat, kDim, 0, true);
  static constexpr int64_t kKeyMeta = MetaOffset(kFormat, kDim, 0, false);
  static constexpr int64_t kValueMeta = MetaOffset(kFormat, kDim, 0, true);
  static constexpr int64_t kKeyScales = Scales(kFormat, kDim, false);
  static constexpr int64_t kValueScales = Scales(kFormat, kDim, true);
  using Row = KeyRow<kKey.bits, kDim>;
  static_assert(kRaw || kValue.axis == Axis::kToken, "");

  // The token of row g + 8 h of block b, and token u = 0 .. 3 of V's block b, for lane 0; LaneRow
  // and LaneValue give this lane's distance from them.
  static constexpr int RowToken(int b, int h) { return b * 16 + h * 8; }
  static constexpr int ValueToken(int b, int u) { return b * 16 + u * 4; }
  __device__ static int LaneRow() {
    const int g = threadIdx.x % 32 / 4;
    return g % 2 * 4 + g / 2;
  }
  __device__ static int LaneValue() { return threadIdx.x % 4; }

  // The part of a page that a lane holds.
  Row key[kBlocks][2];
  uint32_t value[kBlocks][4][kValueWords];
  __half meta[4][kBlocks][2];  // K's scale and offset, V's

  // Load parts of the page; `head` is the head's first byte in it.
  __device__ void LoadKeys(const uint8_t* head) {
    const uint8_t* from = head + LaneRow() * kKeyRow;
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
      for (int h = 0; h < 2; ++h) key[b][h].Load(from + RowToken(b, h) * kKeyRow);
    }
  }
  __device__ void LoadMeta(const uint8_t* head) {
    if constexpr (!kRaw) {
      const auto* k = reinterpret_cast<const __half*>(head + kKeyMeta) + LaneRow();
      const auto* v = reinterpret_cast<const __half*>(head + kValueMeta) + LaneRow();
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          if constexpr (!kPerChannel) {
            meta[0][b][h] = k[RowToken(b, h)];
            meta[1][b][h] = k[RowToken(b, h) + kKeyScales];
          }
          meta[2][b][h] = v[RowToken(b, h)];
          meta[3][b][h] = v[RowToken(b, h) + kValueScales];
        }
      }
    }
  }
  // Loads V. `left` is the number of tokens in this and later pages. Memory after them is
  // undefined: codes do no harm there, but halves may be NaN.
  __device__ void LoadValues(const uint8_t* head, int left) {
    const int g = threadIdx.x % 32 / 4;
    const uint8_t* from = head + kValueCodes + LaneValue() * kValueRow + g * kValueBytes;
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
      for (int u = 0; u < 4; ++u) {
        if (kRaw && ValueToken(b, u) + LaneValue() >= left) {
#pragma unroll
          for (uint32_t& w : value[b][u]) w = 0;
        } else {
          LoadWords<kValueBytes>(from + ValueToken(b, u) * kValueRow, value[b][u]);
        }
      }
    }
  }

  __device__ void Load(const uint8_t* head, int left) {
    LoadKeys(head);
    LoadMeta(head);
    LoadValues(head, left);
  }

  // Computes the products of tokens and queries: score[b] has the rows of block b, times 2^-24
  // except for 16-bit pages.
  __device__ void Score(const uint8_t* head, const TensorQueries<kFormat, kDim>& queries,
                        float (&score)[kBlocks][4]) const {
    if constexpr (kPerChannel) {
      KeyMeta<kKey.bits, kDim> scales, offsets;
      const auto* k = reinterpret_cast<const __half*>(head + kKeyMeta);
      scales.Load(k);
      offsets.Load(k + kKeyScales);
      // sum(q m) is the same for all tokens: a product with equal rows.
      float all[4] = {};
#pragma unroll
      for (int i = 0; i < Row::kPairs; i += 2) {
        const uint32_t m0 = offsets.Half2(i), m1 = offsets.Half2(i + 1);
        MultiplyAdd(all, {m0, m0, m1, m1}, queries.q[i], queries.q[i + 1]);
      }
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
        for (int i = 0; i < 4; ++i) score[b][i] = all[i] * 0x1p-24f;
      }
#pragma unroll
      for (int i = 0; i < Row::kPairs; i += 2) {
        uint32_t q[2];
#pragma unroll
        for (int k2 = 0; k2 < 2; ++k2) {
          const uint32_t power = static_cast<uint32_t>(15 - Row::Bit(i + k2)) * 0x04000400u;
          q[k2] = Multiply2(Multiply2(queries.q[i + k2], scales.Half2(i + k2)), power);
        }
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
          MultiplyAdd(score[b],
                      {key[b][0].Half2(i), key[b][1].Half2(i), key[b][0].Half2(i + 1),
                       key[b][1].Half2(i + 1)},
                      q[0], q[1]);
        }
      }
    } else {
#pragma unroll
      for (int i = 0; i < Row::kPairs; i += 2) {
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
          MultiplyAdd(score[b],
                      {key[b][0].Half2(i), key[b][1].Half2(i), key[b][0].Half2(i + 1),
                       key[b][1].Half2(i + 1)},
                      queries.q[i], queries.q[i + 1]);
        }
      }
    }
  }

  // Adds pages [low, high) of a run. Parts of a large page are loaded as soon as the previous page
  // has freed their registers.
  __device__ static void Add(const PagedArgs& args, const KvRun& run, int low, int high, int head,
                             const TensorQueries<kFormat, kDim>& queries, TensorSums<kDim>& sums) {
    constexpr bool kNear = PageRing<kHeadBytes>::kPays;
    using Pages = std::conditional_t<kNear, PageRing<kHeadBytes>, PrefetchedPages<kHeadBytes>>;
    Pages pages(args, run, low, high, head);
    TensorPages page;
    const uint8_t* now = nullptr;
    if constexpr (!kNear) {
      now = pages.First();
      page.Load(now, run.tokens - low * kTokens);
    }
    sums.template Rescale<kValue.bits>(1);
    for (int p = low; p < high; ++p) {
      const int left = run.tokens - p * kTokens;
      const bool ahead = !kNear && p + 1 < high;
      const uint8_t* next = nullptr;
      if constexpr (kNear) {
        now = pages.At(p);
        page.Load(now, left);
      } else {
        next = pages.Behind(p);
      }
      float score[kBlocks][4] = {};
      page.Score(now, queries, score);
      if (ahead) page.LoadKeys(next);
      uint32_t weights[kBlocks][2];
      page.Weigh(left, queries, score, sums, weights);
      if (ahead) page.LoadMeta(next);
      page.AddValues(weights, sums);
      if (ahead) page.LoadValues(next, left - kTokens);
      if (!kNear) now = next;
    }
    sums.template Rescale<kValue.bits>(-1);
  }

 private:
  // Online softmax in base 2: turns scores into weights times V's scales, as an input for V. The
  // body exceeds 60 lines because its steps share the arrays in registers.
  __device__ void Weigh(int left, const TensorQueries<kFormat, kDim>& queries,
                        float (&score)[kBlocks][4], TensorSums<kDim>& sums,
                        uint32_t (&weights)[kBlocks][2]) const {
    constexpr float kWorth = kRaw ? 1.0f : 0x1p24f;
    float top[2] = {sums.max[0], sums.max[1]};
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const bool there = RowToken(b, h) + LaneRow() < left;
#pragma unroll
        for (int e = 0; e < kColumns; ++e) {
          float& s = score[b][2 * h + e];
          s *= queries.unit[e] * kWorth;
          if constexpr (!kRaw && !kPerChannel) {
            s = fmaf(s, __half2float(meta[0][b][h]), queries.sum[e] * __half2float(meta[1][b][h]));
          }
          s = there ? s : -INFINITY;
          top[e] = fmaxf(top[e], s);
        }
      }
    }
#pragma unroll
    for (int e = 0; e < kColumns; ++e) {
#pragma unroll
      for (int off = 4; off < 32; off *= 2) {
        top[e] = fmaxf(top[e], __shfl_xor_sync(~0u, top[e], off));
      }
    }
    bool grown = top[0] > sums.max[0];
    if (kColumns > 1) grown = grown || top[1] > sums.max[1];
    if (__any_sync(~0u, grown)) {
#pragma unroll
      for (int e = 0; e < kColumns; ++e) {
        const float rescale = Exp2(sums.max[e] - top[e]);
        sums.max[e] = top[e];
        sums.sum[e] *= rescale;
        sums.offset[e] *= rescale;
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
          sums.acc[j][e] *= rescale;
          sums.acc[j][2 + e] *= rescale;
        }
      }
    }
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const bool there = RowToken(b, h) + LaneRow() < left;
        const float scale = kRaw ? 1.0f : there ? __half2float(meta[2][b][h]) : 0;
        const float offset = kRaw ? 0.0f : there ? __half2float(meta[3][b][h]) : 0;
        float w[2] = {0, 0};
#pragma unroll
        for (int e = 0; e < kColumns; ++e) {
          const float p = Exp2(score[b][2 * h + e] - sums.max[e]);
          sums.sum[e] += p;
          if constexpr (!kRaw) sums.offset[e] = fmaf(p, offset, sums.offset[e]);
          w[e] = p * scale;
        }
        weights[b][h] = Transpose(Pack(w[0], w[1]));
      }
    }
  }

  __device__ void AddValues(const uint32_t (&weights)[kBlocks][2], TensorSums<kDim>& sums) const {
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        uint32_t a[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {  // channels j and j + kTiles; tokens 0, 1 and 2, 3
          const int channel = j + i % 2 * kTiles, u = i / 2 * 2;
          const int bit = channel * kValue.bits;
          a[i] = Codes<kValue.bits>::Half2(PairUnits(value[b][u], value[b][u + 1], bit / 16),
                                           bit % 16 / kValue.bits);
        }
        MultiplyAdd(sums.acc[j], a, weights[b][0], weights[b][1]);
      }
    }
  }
};

}  // namespace tessera::cuda
