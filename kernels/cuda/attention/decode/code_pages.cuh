// Attention of one query of a KV head over pages of codes whose V has a scale per token, by one
// warp on the integer tensor cores.
//
// The query and the softmax's weights become integers of 24 bits. Their bytes ("digits") are three
// of the eight columns that a product has anyway. Products and sums are therefore exact, and a
// register holds four codes after one AND instead of two. K with scales per channel uses products
// in half precision (tensor_pages.cuh).
//
// Codes stay in place in their bytes: code i of a byte counts 2^(kBits i) times. For K, the query's
// numbers are scaled up by what a code lacks to the byte's highest bits. For V, the sums are
// corrected when they are read, channel by channel.
//
// Lane l is (g, t) = (l / 4, l % 4). It has quarter t of K's rows 16 b + 8 h + g. It has V's
// channels kDim / 8 * g .. of tokens 4 u + t, or, if pages come through shared memory, two bytes of
// each 16 of tokens 8 i + 2 t and the next. It weighs token 8 t + g.
//
// This file exceeds 300 lines: it is one kernel body, whose register layouts are best read
// together.
#pragma once

#include <type_traits>

#include "kernels/cuda/attention/decode/code_query.cuh"
#include "kernels/cuda/attention/decode/tensor_pages.cuh"
#include "kernels/cuda/attention/decode/tensor_sums.cuh"

namespace tessera::cuda {

// One query's sums over runs of codes, base 2. A lane has kDim / 32 neighbouring channels. `sum`
// and `offset` are of the tokens that it weighed.
template <int kDim>
struct CodeSums {
  float max = -INFINITY, sum = 0, offset = 0;
  float channels[kDim / 32] = {};
};

// The pages of one run, one at a time, in the registers of a warp.
template <Format kFormat, int kDim>
struct CodePages {
  static constexpr Codec kKey = CodecOf(kFormat, false), kValue = CodecOf(kFormat, true);
  static constexpr int kBits = kKey.bits;
  static_assert(kBits <= 4 && kValue.bits == kBits && PageTokens(kFormat) == 32, "");
  static_assert(kValue.axis == Axis::kToken && kKey.group == 0 && kValue.group == 0, "");
  static constexpr bool kPerChannel = kKey.axis == Axis::kChannel;
  using Keys = CodeKeys<kBits, kDim>;
  using ChannelKeys = TensorPages<kFormat, kDim, 1>;
  using Query =
      std::conditional_t<kPerChannel, TensorQueries<kFormat, kDim>, CodeQuery<kBits, kDim>>;
  static constexpr int kTokens = 32, kTiles = kDim / 16, kPerByte = 8 / kBits;
  static constexpr int kValueBytes = kDim / 8 * kBits / 8, kValueWords = (kValueBytes + 3) / 4;
  static constexpr int64_t kHeadBytes = HeadBytes(kFormat, kDim);
  static constexpr int64_t kRow = RowBytes(kKey, kDim);
  static constexpr int64_t kValueCodes = CodesOffset(kFormat, kDim, 0, true);
  static constexpr int64_t kKeyMeta = MetaOffset(kFormat, kDim, 0, false);
  static constexpr int64_t kValueMeta = MetaOffset(kFormat, kDim, 0, true);
  // The number of pages after which a sum of digits might exceed 31 bits.
  static constexpr int kFlushPages = 1024;
  static_assert(int64_t{kFlushPages} * kTokens * 255 * 240 < int64_t{1} << 31, "");

  static constexpr bool kNear = PageRing<kHeadBytes>::kPays;
  using Pages = std::conditional_t<kNear, PageRing<kHeadBytes>, PrefetchedPages<kHeadBytes>>;
  // 16 bytes of a row in shared memory are one row of an 8x8 matrix (ldmatrix).
  static constexpr bool kMatrices = kNear && kRow % 16 == 0;
  static constexpr int kColumns = kRow < 16 ? 1 : kRow / 16;  // columns of matrices

  // A warp's shared memory.
  using Scratch = CodeScratch<kDim>;

  // The part of a page that a lane holds.
  Keys key[2][2];
  ChannelKeys channel_keys;  // instead of key, if scales are per channel
  uint32_t value[8][kValueWords];
  uint32_t pairs[kColumns][4];  // instead of value, if kMatrices
  __half meta[4];               // its token's scale and offset of K, then of V

  // Digit sums of channels j and j + kTiles of the lane's kDim / 8. If kMatrices: of codes j and j
  // + kPerByte / 2 of a byte, column after column.
  static constexpr int kSums = kMatrices ? kTiles / 2 : kTiles;
  int sums[kSums][4];
  float top, steps;  // `top`: upper bound of V's scales; `steps`: kSteps / top

  // Returns the row of the lane's token, which is number 8 t + Row().
  __device__ static int Row() {
    return kPerChannel ? ChannelKeys::LaneRow() : threadIdx.x % 32 / 4;
  }
  __device__ static int Token() { return threadIdx.x % 4 * 8 + Row(); }
  __device__ void LoadKeys(const uint8_t* head) {
    if constexpr (kPerChannel) return channel_keys.LoadKeys(head);
    if constexpr (kMatrices && kRow == 16) {
      uint32_t words[4];
      LoadMatrices(SharedAddress(head) + threadIdx.x % 32 * 16, words);
#pragma unroll
      for (int i = 0; i < 4; ++i) key[i / 2][i % 2].word[0] = words[i];
      return;
    }
    const uint8_t* from = head + threadIdx.x % 32 / 4 * kRow + threadIdx.x % 4 * Keys::kBytes;
#pragma unroll
    for (int b = 0; b < 2; ++b) {
#pragma unroll
      for (int h = 0; h < 2; ++h) key[b][h].Load(from + (b * 16 + h * 8) * kRow);
    }
  }
  __device__ void LoadMeta(const uint8_t* head) {
    if constexpr (kNear && !kPerChannel) {  // matrix rows alternate scales and offsets
      static_assert(kPerChannel || kValueMeta == kKeyMeta + 128, "");
      const int lane = threadIdx.x % 16;
      uint32_t words[2];
      LoadMatricesTransposed(
          SharedAddress(head + kKeyMeta) + lane / 8 * 128 + lane % 2 * 64 + lane % 8 / 2 * 16,
          words);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const __half2 pair = *reinterpret_cast<const __half2*>(&words[i]);
        meta[2 * i] = pair.x, meta[2 * i + 1] = pair.y;
      }
    } else {
      const auto* k = reinterpret_cast<const __half*>(head + kKeyMeta) + Token();
      const auto* v = reinterpret_cast<const __half*>(head + kValueMeta) + Token();
      if (!kPerChannel) meta[0] = k[0], meta[1] = k[kTokens];
      meta[2] = v[0], meta[3] = v[kTokens];
    }
  }
  __device__ void LoadValues(const uint8_t* head) {
    if constexpr (kMatrices) {
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        LoadMatricesTransposed(
            SharedAddress(head + kValueCodes) + threadIdx.x % 32 * static_cast<int>(kRow) + i * 16,
            pairs[i]);
      }
      return;
    }
    const uint8_t* from =
        head + kValueCodes + threadIdx.x % 4 * kRow + threadIdx.x % 32 / 4 * kValueBytes;
#pragma unroll
    for (int u = 0; u < 8; ++u) LoadWords<kValueBytes>(from + u * 4 * kRow, value[u]);
  }
  __device__ void Load(const uint8_t* head) {
    LoadKeys(head);
    LoadMeta(head);
    LoadValues(head);
  }

  // Returns the lane's token's score. `head` is read again for scales per channel.
  __device__ float Score(const uint8_t* head, const Query& query) const {
    if constexpr (kPerChannel) {
      float rows[2][4];
      channel_keys.Score(head, query, rows);
      // All columns have the query. From each lane's four rows it takes one.
      const float first = threadIdx.x % 4 < 2 ? rows[0][0] : rows[1][0];
      const float second = threadIdx.x % 4 < 2 ? rows[0][2] : rows[1][2];
      return (threadIdx.x % 2 == 0 ? first : second) * (query.unit[0] * 0x1p24f);
    } else {
      return fmaf(Product(query), __half2float(meta[0]), query.sum * __half2float(meta[1]));
    }
  }
  // Returns the product of the query and K's row of the lane's token.
  __device__ float Product(const CodeQuery<kBits, kDim>& query) const {
    int c[2][4] = {};
#pragma unroll
    for (int i = 0; i < Keys::kOperands; i += 2) {
#pragma unroll
      for (int b = 0; b < 2; ++b) {
        MultiplyAddSigned(c[b],
                          {key[b][0].Operand(i), key[b][1].Operand(i), key[b][0].Operand(i + 1),
                           key[b][1].Operand(i + 1)},
                          query.digits[i], query.digits[i + 1]);
      }
    }
    // Lanes t = 0, 1 have the digits of block 0, lanes t = 2, 3 those of block 1. The first lane of
    // each pair takes row g, the second row g + 8.
    const bool second = threadIdx.x % 4 >= 2, odd = threadIdx.x % 2 != 0;
    int x[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int high = second ? c[1][2 * h] : c[0][2 * h];
      const int low = second ? c[1][2 * h + 1] : c[0][2 * h + 1];
      x[h] = high * 256 + low;
    }
    const int mine = odd ? x[1] : x[0];
    const int other = __shfl_xor_sync(~0u, odd ? x[0] : x[1], 1);
    return static_cast<float>(mine) * query.mine + static_cast<float>(other) * query.neighbour;
  }

  // Adds `sums` to the channels' sums and clears them.
  __device__ void Flush(Scratch& scratch, CodeSums<kDim>& all) {
    constexpr int kMine = kDim / 32;
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    int* upper = &scratch.upper[0].x;
    __syncwarp();
    if (kMatrices || t < 2) {
      // One store per register. Wider stores would need another order of the sums in registers, and
      // moves of all of them for every page.
#pragma unroll
      for (int i = 0; i < 2 * kSums; ++i) {
        constexpr int kCodes = kPerByte / 2;
        const int j = i % kSums, h = i / kSums;
        const int channel =
            kMatrices ? ((j / kCodes * 8 + g) * 2 + t / 2) * kPerByte + j % kCodes + h * kCodes
                      : g * 2 * kTiles + i;
        if (t % 2 == 0) {
          upper[2 * channel] = sums[j][2 * h], upper[2 * channel + 1] = sums[j][2 * h + 1];
        } else {
          scratch.lower[channel] = sums[j][2 * h];
        }
      }
    }
    __syncwarp();
    const int first = threadIdx.x % 32 * kMine;
#pragma unroll
    for (int m = 0; m < kMine; ++m) {
      const int2 upper = scratch.upper[first + m];
      const float x = static_cast<float>(upper.x) * 65536 + static_cast<float>(upper.y) * 256 +
                      static_cast<float>(scratch.lower[first + m]);
      const int shift = kBits * ((first + m) % kPerByte);
      all.channels[m] =
          fmaf(x * (top * (1 / kSteps)), __uint_as_float(static_cast<uint32_t>(127 - shift) << 23),
               all.channels[m]);
    }
#pragma unroll
    for (auto& c : sums) c[0] = c[1] = c[2] = c[3] = 0;
  }
  // Flushes the sums if `filled`, and makes room, with some reserve, for a larger score and a
  // larger scale of V.
  __device__ void Grow(float score, float scale, bool filled, Scratch& scratch,
                       CodeSums<kDim>& all) {
    const float most = WarpMax(score), largest = WarpMax(scale);
    if (filled) Flush(scratch, all);
    if (largest > top) SetTop(2 * largest);
    if (!(most > all.max)) return;
    const float shrink = Exp2(all.max - (most + 2));
    all.max = most + 2;
    all.sum *= shrink;
    all.offset *= shrink;
    for (float& x : all.channels) x *= shrink;
  }

  // Returns byte b of four tokens' words.
  __device__ static uint32_t Bytes(const uint32_t (&v)[8][kValueWords], int first, int b) {
    const int w = b / 4, pick = b % 4 < 2 ? 0x5140 : 0x7362;
    const uint32_t low = __byte_perm(v[first][w], v[first + 1][w], pick);
    const uint32_t high = __byte_perm(v[first + 2][w], v[first + 3][w], pick);
    return __byte_perm(low, high, b % 2 == 0 ? 0x5410 : 0x7632);
  }
  __device__ void AddValues(uint32_t weight, Scratch& scratch) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, row = Row();
    auto* words = reinterpret_cast<uint32_t*>(scratch.weights);
    __syncwarp();
    // Stores the weight where the lanes with the token's values read it.
    words[kMatrices ? row / 2 * 8 + t * 2 + row % 2
                    : t / 2 * 16 + row % 4 * 4 + t % 2 * 2 + row / 4] = weight;
    __syncwarp();
    if constexpr (kMatrices) {
      // A pair's words hold two bytes of each of two tokens. Columns 0 to 2 have the digits of a
      // weight at the first byte's position, columns 4 to 6 at the second's.
      const uint4 a = scratch.weights[2 * t], b = scratch.weights[2 * t + 1];
      const uint32_t column = g % 4, digit = column < 3 ? 2 - column : 3, second = digit + 4;
      const uint32_t pick =
          g < 4 ? 0x3030 | digit | second << 8 : 0x0303 | digit << 4 | second << 12;
      const uint32_t digits[4] = {__byte_perm(a.x, a.y, pick), __byte_perm(a.z, a.w, pick),
                                  __byte_perm(b.x, b.y, pick), __byte_perm(b.z, b.w, pick)};
      constexpr uint32_t kFirst = ((1u << kBits) - 1) * 0x01010101u;
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
#pragma unroll
        for (int j = 0; j < kSums; ++j) {
          constexpr int kCodes = kPerByte / 2;
          const uint32_t(&v)[4] = pairs[j / kCodes];
          const uint32_t low = kFirst << kBits * (j % kCodes), high = low << kBits * kCodes;
          MultiplyAddUnsigned(sums[j], {v[i] & low, v[i] & high, v[i + 1] & low, v[i + 1] & high},
                              digits[i], digits[i + 1]);
        }
      }
      return;
    }
    const uint4 a = scratch.weights[t], b = scratch.weights[4 + t];
    const uint32_t b0 = DigitsOfColumn(a.x, a.y, a.z, a.w);
    const uint32_t b1 = DigitsOfColumn(b.x, b.y, b.z, b.w);
    uint32_t bytes[2][kValueBytes];
#pragma unroll
    for (int i = 0; i < kValueBytes; ++i) bytes[0][i] = Bytes(value, 0, i);
#pragma unroll
    for (int i = 0; i < kValueBytes; ++i) bytes[1][i] = Bytes(value, 4, i);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      uint32_t operand[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int channel = j + i % 2 * kTiles, field = channel % kPerByte;
        const uint32_t mask = ((1u << kBits) - 1) * 0x01010101u << kBits * field;
        operand[i] = bytes[i / 2][channel / kPerByte] & mask;
      }
      MultiplyAddUnsigned(sums[j], operand, b0, b1);
    }
  }

  // Adds pages [low, high) of a run to `all`. It loads pages as TensorPages::Add does.
  __device__ static void Add(const PagedArgs& args, const KvRun& run, int low, int high, int head,
                             const float* q, float q_scale, Scratch& scratch, CodeSums<kDim>& all) {
    Pages pages(args, run, low, high, head);
    CodePages page;
    const uint8_t* now = nullptr;
    if constexpr (!kNear) {
      now = pages.First();
      page.Load(now);
    }
    Query query;
    if constexpr (kPerChannel) {
      query.Load(true, q, q_scale);
    } else {
      query.Load(q, q_scale, scratch);
    }
    page.SetTop(0x1p-24f);
#pragma unroll
    for (auto& c : page.sums) c[0] = c[1] = c[2] = c[3] = 0;
    for (int p = low; p < high; ++p) {
      const bool there = Token() < run.tokens - p * kTokens;
      const bool ahead = !kNear && p + 1 < high;
      const uint8_t* next = nullptr;
      if constexpr (kNear) {
        now = pages.At(p);
        page.Load(now);
      } else {
        next = pages.Behind(p);
      }

      float score = page.Score(now, query);
      if (!there) score = -INFINITY;
      if (ahead) page.LoadKeys(next);
      // Memory after the last token is undefined.
      const float scale = there ? __half2float(page.meta[2]) : 0;
      const float offset = there ? __half2float(page.meta[3]) : 0;
      if (ahead) page.LoadMeta(next);
      const bool full = p % kFlushPages == kFlushPages - 1;
      if (__any_sync(~0u, full || score > all.max || scale > page.top)) {
        page.Grow(score, scale, p > low, scratch, all);
      }
      const float weight = Exp2(score - all.max);
      all.sum += weight;
      all.offset = fmaf(weight, offset, all.offset);
      page.AddValues(__float2uint_rn(weight * scale * page.steps), scratch);
      if (ahead) page.LoadValues(next);
      if (!kNear) now = next;
    }
    page.Flush(scratch, all);
  }

 private:
  __device__ void SetTop(float most) {
    top = most;
    steps = kSteps / most;
  }
  static constexpr float kSteps = 16777000.0f;  // below 2^24
};

}  // namespace tessera::cuda
