// Attention of up to eight queries of one KV head over pages of one format by one warp, on tensor
// cores: rows of K are one operand, queries the other, so that unpacking costs the same for one
// query as for eight.
//
// Scales and offsets do not touch the codes. Per token: s (q . c) + m sum(q), and weights times s
// times codes plus the sum of weights times m. Per channel: K's scales go into q, page by page.
//
// Lane l is (g, t) = (l / 4, l % 4) in the tensor cores' layouts. K: lane (g, t) holds a quarter of
// the channels of tokens "row" g and g + 8, in an order of its own, which q follows. V: channels
// dim / 8 * g .. of four tokens. Row r of 16 tokens is token 8 (r / 8) + 4 (r % 2) + r % 8 / 2, so
// that the rows that lanes read at a time lie beside each other.
#pragma once

#include <type_traits>

#include "kernels/cuda/attention/decode/page_ring.cuh"
#include "kernels/cuda/attention/decode/tensor_keys.cuh"
#include "kernels/cuda/attention/decode/tensor_sums.cuh"

namespace tessera::cuda {

// Pages of one run, one at a time in the registers of a warp.
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

  // Token of row g + 8 h of block b, and token u = 0 .. 3 of V's block b, of lanes 0; and how far
  // this lane's lie behind them.
  static constexpr int RowToken(int b, int h) { return b * 16 + h * 8; }
  static constexpr int ValueToken(int b, int u) { return b * 16 + u * 4; }
  __device__ static int LaneRow() {
    const int g = threadIdx.x % 32 / 4;
    return g % 2 * 4 + g / 2;
  }
  __device__ static int LaneValue() { return threadIdx.x % 4; }

  // What a lane holds of a page.
  Row key[kBlocks][2];
  uint32_t value[kBlocks][4][kValueWords];
  __half meta[4][kBlocks][2];  // K's scale and offset, V's

  // `head`: the head's first byte in the page.
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
  // `left`: tokens of the page, or more. Behind them may lie anything: codes do no harm, halves may
  // be NaN.
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

  // Products of tokens and queries: rows of block b in score[b], times 2^-24 but for 16-bit pages.
  __device__ void Score(const uint8_t* head, const TensorQueries<kFormat, kDim>& queries,
                        float (&score)[kBlocks][4]) const {
    if constexpr (kPerChannel) {
      KeyMeta<kKey.bits, kDim> scales, offsets;
      const auto* k = reinterpret_cast<const __half*>(head + kKeyMeta);
      scales.Load(k);
      offsets.Load(k + kKeyScales);
      // sum(q m), the same for all tokens: a product with equal rows.
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

  // Adds pages [low, high) of a run. Of a large page, the parts are loaded as soon as the page
  // before has freed their registers.
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
  // Online softmax in base 2: scores become weights, with V's scales, as the operand of V.
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
