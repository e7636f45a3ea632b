// Attention of one query of a KV head over pages of codes with a scale per token, by one warp, on
// the integer tensor cores. The query and the softmax's weights become whole numbers of 24 bits,
// whose bytes ("digits") are three of the eight columns that a product has anyway: the products and
// their sums are exact, and a register holds four codes after one AND instead of two.
//
// Codes stay where they lie in their bytes: code i of a byte counts 2^(kBits i) times. For K the
// query's numbers are larger by what the code lacks of the byte's highest; V's sums are corrected
// when they are read, channel by channel.
//
// Lane l is (g, t) = (l / 4, l % 4). K: it holds quarter t of rows 16 b + 8 h + g; V: channels
// kDim / 8 * g .. of tokens 4 u + t. It weighs token 8 t + g.
#pragma once

#include "kernels/cuda/code_query.cuh"
#include "kernels/cuda/paged_plan.cuh"
#include "kernels/cuda/tensor_sums.cuh"

namespace tessera::cuda {

// One query's sums over runs of codes, base 2. A lane has kDim / 32 neighbouring channels, and
// `sum` and `offset` of the tokens that it weighed.
template <int kDim>
struct CodeSums {
  float max = -INFINITY, sum = 0, offset = 0;
  float channels[kDim / 32] = {};
};

// Pages of one run, one at a time in the registers of a warp.
template <Format kFormat, int kDim>
struct CodePages {
  static constexpr Codec kKey = CodecOf(kFormat, false), kValue = CodecOf(kFormat, true);
  static constexpr int kBits = kKey.bits;
  static_assert(kBits <= 4 && kValue.bits == kBits && PageTokens(kFormat) == 32, "");
  static_assert(kKey.axis == Axis::kToken && kValue.axis == Axis::kToken && kKey.group == 0 &&
                    kValue.group == 0,
                "");
  using Keys = CodeKeys<kBits, kDim>;
  static constexpr int kTokens = 32, kTiles = kDim / 16, kPerByte = 8 / kBits;
  static constexpr int kValueBytes = kDim / 8 * kBits / 8, kValueWords = (kValueBytes + 3) / 4;
  static constexpr int64_t kHeadBytes = HeadBytes(kFormat, kDim);
  static constexpr int64_t kRow = RowBytes(kKey, kDim);
  static constexpr int64_t kValueCodes = CodesOffset(kFormat, kDim, 0, true);
  static constexpr int64_t kKeyMeta = MetaOffset(kFormat, kDim, 0, false);
  static constexpr int64_t kValueMeta = MetaOffset(kFormat, kDim, 0, true);
  // Pages after which a sum of digits might not fit 31 bits.
  static constexpr int kFlushPages = 1024;
  static_assert(int64_t{kFlushPages} * kTokens * 255 * 240 < int64_t{1} << 31, "");

  // Shared memory of a warp.
  using Scratch = CodeScratch<kDim>;

  // What a lane holds of a page.
  Keys key[2][2];
  uint32_t value[8][kValueWords];
  __half meta[4];  // of token 8 t + g: K's scale and offset, V's

  int sums[kTiles][4];  // channels j and j + kTiles of the lane's kDim / 8
  float top;            // V's scales are not above it

  __device__ static int Token() { return threadIdx.x % 4 * 8 + threadIdx.x % 32 / 4; }
  __device__ void LoadKeys(const uint8_t* head) {
    const uint8_t* from = head + threadIdx.x % 32 / 4 * kRow + threadIdx.x % 4 * Keys::kBytes;
#pragma unroll
    for (int b = 0; b < 2; ++b) {
#pragma unroll
      for (int h = 0; h < 2; ++h) key[b][h].Load(from + (b * 16 + h * 8) * kRow);
    }
  }
  __device__ void LoadMeta(const uint8_t* head) {
    const auto* k = reinterpret_cast<const __half*>(head + kKeyMeta) + Token();
    const auto* v = reinterpret_cast<const __half*>(head + kValueMeta) + Token();
    meta[0] = __ldg(k), meta[1] = __ldg(k + kTokens);
    meta[2] = __ldg(v), meta[3] = __ldg(v + kTokens);
  }
  __device__ void LoadValues(const uint8_t* head) {
    const uint8_t* from =
        head + kValueCodes + threadIdx.x % 4 * kRow + threadIdx.x % 32 / 4 * kValueBytes;
#pragma unroll
    for (int u = 0; u < 8; ++u) LoadWords<kValueBytes>(from + u * 4 * kRow, value[u]);
  }

  // The product of K's row of the lane's token and the query.
  __device__ float Score(const CodeQuery<kBits, kDim>& query) const {
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
    // Lanes t = 0, 1 have the digits of block 0 and t = 2, 3 those of block 1; of either two lanes
    // the first takes row g, the second row g + 8.
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
    const float up = UpperDigits();
    return (static_cast<float>(mine) * up + static_cast<float>(other) * (1 / up)) * query.unit;
  }

  // Adds what `sums` hold to the channels' and clears them.
  __device__ void Flush(Scratch& scratch, CodeSums<kDim>& all) {
    constexpr int kMine = kDim / 32;
    const int g = threadIdx.x % 32 / 4 * (2 * kTiles), t = threadIdx.x % 4;
    // Channel i of the lane's: its digits.
    const auto digits = [&](int i) { return &sums[i % kTiles][i / kTiles * 2]; };
    __syncwarp();
    if (t == 0) {
#pragma unroll
      for (int i = 0; i < 2 * kTiles; i += 2) {
        *reinterpret_cast<int4*>(scratch.upper + g + i) = {digits(i)[0], digits(i)[1],
                                                           digits(i + 1)[0], digits(i + 1)[1]};
      }
    } else if (t == 1) {
#pragma unroll
      for (int i = 0; i < 2 * kTiles; i += 4) {
        *reinterpret_cast<int4*>(scratch.lower + g + i) = {digits(i)[0], digits(i + 1)[0],
                                                           digits(i + 2)[0], digits(i + 3)[0]};
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
  // Empties the sums, if `filled`, and makes room for a score and a scale of V beyond those seen,
  // with some to spare.
  __device__ void Grow(float score, float scale, bool filled, Scratch& scratch,
                       CodeSums<kDim>& all) {
    const float most = WarpMax(score), largest = WarpMax(scale);
    if (filled) Flush(scratch, all);
    if (largest > top) top = 2 * largest;
    if (!(most > all.max)) return;
    const float shrink = Exp2(all.max - (most + 2));
    all.max = most + 2;
    all.sum *= shrink;
    all.offset *= shrink;
    for (float& x : all.channels) x *= shrink;
  }

  // Byte b of four tokens' words.
  __device__ static uint32_t Bytes(const uint32_t (&v)[8][kValueWords], int first, int b) {
    const int w = b / 4, pick = b % 4 < 2 ? 0x5140 : 0x7362;
    const uint32_t low = __byte_perm(v[first][w], v[first + 1][w], pick);
    const uint32_t high = __byte_perm(v[first + 2][w], v[first + 3][w], pick);
    return __byte_perm(low, high, b % 2 == 0 ? 0x5410 : 0x7632);
  }
  __device__ void AddValues(uint32_t weight, Scratch& scratch) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    auto* words = reinterpret_cast<uint32_t*>(scratch.weights);
    __syncwarp();
    words[t / 2 * 16 + g % 4 * 4 + t % 2 * 2 + g / 4] = weight;
    __syncwarp();
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

  // Adds pages [low, high) of a run to `all`. Loads as in TensorPages::Add.
  __device__ static void Add(const PagedArgs& args, const KvRun& run, int low, int high, int head,
                             const CodeQuery<kBits, kDim>& query, Scratch& scratch,
                             CodeSums<kDim>& all) {
    const PageId* pages = args.kv.pages + run.first_page;
    const uint8_t* base = args.kv.arena + head * kHeadBytes;
    const auto id = [&](int p) { return pages[min(p, high - 1)]; };
    const auto find = [&](PageId page) { return base + page * kPageUnitBytes; };
    const uint8_t* now = find(id(low));
    PageId second = id(low + 1), third = id(low + 2);  // the next page's, and the one's behind it
    CodePages page;
    page.LoadKeys(now);
    page.LoadMeta(now);
    page.LoadValues(now);
    PrefetchHead<kHeadBytes>(find(second));
    page.top = 0x1p-24f;
#pragma unroll
    for (auto& c : page.sums) c[0] = c[1] = c[2] = c[3] = 0;
    for (int p = low; p < high; ++p) {
      const bool there = Token() < run.tokens - p * kTokens;
      const bool more = p + 1 < high;
      const uint8_t* next = find(second);
      if (p + 2 < high) PrefetchHead<kHeadBytes>(find(third));
      second = third;
      third = id(p + 3);

      float score = page.Score(query);
      if (more) page.LoadKeys(next);
      score = fmaf(score, __half2float(page.meta[0]), query.sum * __half2float(page.meta[1]));
      if (!there) score = -INFINITY;
      // Behind the last token may lie anything.
      const float scale = there ? __half2float(page.meta[2]) : 0;
      const float offset = there ? __half2float(page.meta[3]) : 0;
      if (more) page.LoadMeta(next);
      const bool full = (p - low) % kFlushPages == kFlushPages - 1;
      if (__any_sync(~0u, full || score > all.max || scale > page.top)) {
        page.Grow(score, scale, p > low, scratch, all);
      }
      const float weight = Exp2(score - all.max);
      all.sum += weight;
      all.offset = fmaf(weight, offset, all.offset);
      page.AddValues(__float2uint_rn(weight * scale * (kSteps / page.top)), scratch);
      if (more) page.LoadValues(next);
    }
    page.Flush(scratch, all);
  }

 private:
  static constexpr float kSteps = 16777000.0f;  // below 2^24
};

}  // namespace tessera::cuda
