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

#include "kernels/cuda/halves.cuh"
#include "kernels/cuda/paged_plan.cuh"
#include "kernels/cuda/tensor_codes.cuh"

namespace tessera::cuda {

// Sums of up to eight queries; this lane's are queries 2 t and 2 t + 1.
template <int kDim>
struct TensorSums {
  static constexpr int kTiles = kDim / 16;  // of channels
  // acc[j][e]: query 2 t + e, channel j of the lane's kDim / 8; acc[j][2 + e]: channel j + kTiles.
  float acc[kTiles][4];
  float max[2], sum[2], offset[2];  // base 2; `sum` and `offset` of this lane's tokens only

  __device__ void Clear() {
#pragma unroll
    for (auto& a : acc) a[0] = a[1] = a[2] = a[3] = 0;
#pragma unroll
    for (int e = 0; e < 2; ++e) max[e] = -INFINITY, sum[e] = offset[e] = 0;
  }
  // acc times 2^(sign (p - 24)) for the codes of a format.
  template <int kBits>
  __device__ void Rescale(int sign) {
    if constexpr (kBits < 16) {
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int channel = j + (i / 2) * kTiles, p = Codes<kBits>::Bit(channel % (16 / kBits));
          acc[j][i] *= __uint_as_float(static_cast<uint32_t>(127 + sign * (p - 24)) << 23);
        }
      }
    }
  }
  __device__ void JoinLanes() {
#pragma unroll
    for (int off = 4; off < 32; off *= 2) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        sum[e] += __shfl_xor_sync(~0u, sum[e], off);
        offset[e] += __shfl_xor_sync(~0u, offset[e], off);
      }
    }
  }
};

// How the quarter row of K that a lane holds is laid out.
template <int kBits, int kDim>
struct KeyRow {
  static constexpr int kBytes = kDim * kBits / 8 / 4, kWords = (kBytes + 3) / 4;
  static constexpr int kPairs = kDim / 8;                                           // half2s
  static constexpr int kFields = kBytes < 4 ? 8 * kBytes / kBits / 2 : 16 / kBits;  // of a word
  // Channels of the lane that lie beside each other: 16 bytes of them, or all.
  static constexpr int kSegment = kBytes < 16 ? kDim / 4 : 128 / kBits;
  // The lane's channel number l, 0 <= l < kDim / 4.
  __device__ static int Channel(int l) {
    return (l / kSegment * 4 + static_cast<int>(threadIdx.x % 4)) * kSegment + l % kSegment;
  }
  // Half2 number i has the lane's channels Low(i) and High(i), and p Bit(i).
  __host__ __device__ static constexpr int Low(int i) {
    return i / kFields * 2 * kFields + i % kFields;
  }
  __host__ __device__ static constexpr int High(int i) { return Low(i) + kFields; }
  __host__ __device__ static constexpr int Bit(int i) { return Codes<kBits>::Bit(i % kFields); }

  uint32_t word[kWords];

  __device__ void Load(const uint8_t* row) {
    const int t = threadIdx.x % 4;
    if constexpr (kBytes <= 16) {
      LoadWords<kBytes>(row + t * kBytes, word);
      // Two bytes: one in each half of the word.
      if constexpr (kBytes == 2) word[0] = __byte_perm(word[0], 0, 0x4140);
    } else {
#pragma unroll
      for (int i = 0; i < kWords; i += 4) {
        uint32_t part[4];
        LoadWords<16>(row + (i + t) * 16, part);
#pragma unroll
        for (int k = 0; k < 4; ++k) word[i + k] = part[k];
      }
    }
  }
  __device__ uint32_t Half2(int i) const {
    return Codes<kBits>::Half2(word[i / kFields], i % kFields);
  }
};

// Halves at the lane's channels of a row of kDim halves, as half2s in the order of KeyRow.
template <int kBits, int kDim>
struct KeyMeta {
  using Row = KeyRow<kBits, kDim>;
  uint32_t word[kDim / 8];
  __device__ void Load(const __half* from) {
#pragma unroll
    for (int l = 0; l < kDim / 4; l += 8) {
      const uint4 v = __ldg(reinterpret_cast<const uint4*>(from + Row::Channel(l)));
      word[l / 2] = v.x, word[l / 2 + 1] = v.y, word[l / 2 + 2] = v.z, word[l / 2 + 3] = v.w;
    }
  }
  __device__ uint32_t Half2(int i) const {
    const int low = Row::Low(i), high = Row::High(i);
    return __byte_perm(word[low / 2], word[high / 2], low % 2 == 0 ? 0x5410 : 0x7632);
  }
};

__device__ inline uint32_t Multiply2(uint32_t a, uint32_t b) {
  const __half2 h =
      __hmul2(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b));
  return *reinterpret_cast<const uint32_t*>(&h);
}

// The queries as operands for K of one format. They are scaled by a power of two each, so that no
// query's size loses bits of a half: to at most 2^15, or, where K's scales are multiplied in, 1.
template <Format kFormat, int kDim>
struct TensorQueries {
  static constexpr Codec kKey = CodecOf(kFormat, false);
  static constexpr bool kPerChannel = kKey.axis == Axis::kChannel;
  using Row = KeyRow<kKey.bits, kDim>;
  uint32_t q[Row::kPairs];  // of query g
  float unit[2], sum[2];    // of queries 2 t, 2 t + 1: what a product is worth; sum of q in that

  // from: query g if there is one; `scale`: of the softmax, times log2 e.
  __device__ void Load(bool there, const float* from, float scale) {
    float x[kDim / 4];
#pragma unroll
    for (int l = 0; l < kDim / 4; l += 4) {
      float4 v = {0, 0, 0, 0};
      if (there) v = *reinterpret_cast<const float4*>(from + Row::Channel(l));
      x[l] = v.x, x[l + 1] = v.y, x[l + 2] = v.z, x[l + 3] = v.w;
    }
    float top = 0;
#pragma unroll
    for (float v : x) top = fmaxf(top, fabsf(v));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
    // top is in [1, 2) 2^(exponent - 127); far beyond any model's range it is as good as at its
    // end.
    const int exponent = min(max(static_cast<int>(__float_as_uint(top) >> 23), 64), 190);
    constexpr int kTop = kPerChannel ? -1 : 14;
    const float up = __uint_as_float(static_cast<uint32_t>(254 + kTop - exponent) << 23);
    float total = 0;
#pragma unroll
    for (int i = 0; i < Row::kPairs; ++i) {
      // p does not go below the sixteen bits of range that are left; where K's scales come in, it
      // is applied after them.
      constexpr bool kNow = !kPerChannel && kKey.bits < 16;
      const float down =
          kNow ? __uint_as_float(static_cast<uint32_t>(127 - Row::Bit(i)) << 23) : 1.0f;
      const __half2 h = __floats2half2_rn(x[Row::Low(i)] * up * down, x[Row::High(i)] * up * down);
      q[i] = *reinterpret_cast<const uint32_t*>(&h);
      const float2 f = __half22float2(h);
      total += (f.x + f.y) * (1 / down);
    }
    total += __shfl_xor_sync(~0u, total, 1);
    total += __shfl_xor_sync(~0u, total, 2);
    const float worth = scale * __uint_as_float(static_cast<uint32_t>(exponent - kTop) << 23);
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      unit[e] = __shfl_sync(~0u, worth, (2 * t + e) * 4);
      sum[e] = __shfl_sync(~0u, total, (2 * t + e) * 4) * unit[e];
    }
  }
};

// Adds pages [low, high) of a run.
template <Format kFormat, int kDim, int kColumns>
struct TensorPages {
  static constexpr Codec kKey = CodecOf(kFormat, false), kValue = CodecOf(kFormat, true);
  static constexpr int kTokens = PageTokens(kFormat), kBlocks = kTokens / 16;
  static constexpr bool kRaw = kFormat == Format::kRaw16;
  static constexpr bool kPerChannel = kKey.axis == Axis::kChannel;
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

  // Token of row g + 8 h of block b.
  __device__ static int RowToken(int b, int h) {
    const int g = threadIdx.x % 32 / 4;
    return b * 16 + h * 8 + g % 2 * 4 + g / 2;
  }
  // Tokens u = 0 .. 3 of V's block b in this lane.
  __device__ static int ValueToken(int b, int u) { return b * 16 + u * 4 + threadIdx.x % 4; }

  __device__ static void Add(const PagedArgs& args, const KvRun& run, int low, int high, int head,
                             const TensorQueries<kFormat, kDim>& queries, TensorSums<kDim>& sums) {
    const int g = threadIdx.x % 32 / 4;
    const PageId* pages = args.kv.pages + run.first_page;
    const uint8_t* base = args.kv.arena + head * kHeadBytes;
    sums.template Rescale<kValue.bits>(1);
    PageId id = pages[low];
    for (int p = low; p < high; ++p) {
      const uint8_t* page = base + id * kPageUnitBytes;
      if (p + 1 < high) id = pages[p + 1];
      const int left = run.tokens - p * kTokens;  // tokens of this page, or more

      Row key[kBlocks][2];
      uint32_t value[kBlocks][4][kValueWords];
      __half meta[4][kBlocks][2];  // K's scale and offset, V's
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
        for (int h = 0; h < 2; ++h) key[b][h].Load(page + RowToken(b, h) * kKeyRow);
      }
      if constexpr (!kRaw) {
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            const auto* k = reinterpret_cast<const __half*>(page + kKeyMeta) + RowToken(b, h);
            const auto* v = reinterpret_cast<const __half*>(page + kValueMeta) + RowToken(b, h);
            if constexpr (!kPerChannel) {
              meta[0][b][h] = __ldg(k);
              meta[1][b][h] = __ldg(k + kKeyScales);
            }
            meta[2][b][h] = __ldg(v);
            meta[3][b][h] = __ldg(v + kValueScales);
          }
        }
      }
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
        for (int u = 0; u < 4; ++u) {
          const int token = ValueToken(b, u);
          // Behind the run's end may lie anything: codes do no harm, halves may be NaN.
          if (kRaw && token >= left) {
#pragma unroll
            for (uint32_t& w : value[b][u]) w = 0;
          } else {
            LoadWords<kValueBytes>(page + kValueCodes + token * kValueRow + g * kValueBytes,
                                   value[b][u]);
          }
        }
      }

      float score[kBlocks][4] = {};
      if constexpr (kPerChannel) {
        KeyMeta<kKey.bits, kDim> scales, offsets;
        const auto* k = reinterpret_cast<const __half*>(page + kKeyMeta);
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
      AddScores(left, score, meta, queries, value, sums);
    }
    sums.template Rescale<kValue.bits>(-1);
  }

 private:
  // Online softmax in base 2, then the sums over V.
  __device__ static void AddScores(int left, float (&score)[kBlocks][4],
                                   const __half (&meta)[4][kBlocks][2],
                                   const TensorQueries<kFormat, kDim>& queries,
                                   const uint32_t (&value)[kBlocks][4][kValueWords],
                                   TensorSums<kDim>& sums) {
    constexpr float kWorth = kRaw ? 1.0f : 0x1p24f;
    float top[2] = {sums.max[0], sums.max[1]};
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const bool there = RowToken(b, h) < left;
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
      uint32_t weights[2];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const bool there = RowToken(b, h) < left;
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
        weights[h] = Transpose(Pack(w[0], w[1]));
      }
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
        MultiplyAdd(sums.acc[j], a, weights[0], weights[1]);
      }
    }
  }
};

}  // namespace tessera::cuda
