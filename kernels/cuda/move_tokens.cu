#include <cuda_fp16.h>

#include "kernels/cuda/check.h"
#include "kernels/cuda/halves.cuh"
#include "kernels/cuda/move_tokens.h"

namespace tessera::cuda {
namespace {

constexpr int kWarps = 4, kLane = 8;  // channels of a lane, so head dims up to 256
constexpr int kMaxHeadDim = 32 * kLane;

struct MoveArgs {
  uint8_t* arena;
  int kv_heads, dim;
  PageParts from, to;
  bool whole_pages;
  MoveRule rule;
  const TokenMove* moves;
  int64_t n;
};

struct DeviceAffine {
  __half scale, offset;
};

// FitAffine of quantize.h.
__device__ DeviceAffine Fit(float min, float max, int bits, float clip, bool integer_offset) {
  min = __fadd_rn(min, 0.0f);
  const float lo = __fmul_rn(clip, min), hi = __fmul_rn(clip, max);
  const __half scale = ToHalf(__fdiv_rn(__fsub_rn(hi, lo), static_cast<float>((1 << bits) - 1)));
  const float s = __half2float(scale);
  if (!(s > 0)) return {__float2half_rn(1.0f), ToHalf(min)};
  return {scale, ToHalf(integer_offset ? __fmul_rn(s, rintf(__fdiv_rn(lo, s))) : lo)};
}

// AffineCode of quantize.h.
__device__ uint32_t Code(float x, float scale, float offset, int bits) {
  const float max = static_cast<float>((1 << bits) - 1);
  const float steps = __fdiv_rn(__fsub_rn(x, offset), scale);
  return static_cast<uint32_t>(rintf(steps > 0 ? (steps < max ? steps : max) : 0));
}

__device__ void CheckMove(const MoveArgs& args, int64_t i) {
  const TokenMove move = args.moves[i];
  bool good = move.from.page != kNoPage && move.to.page != kNoPage &&
              move.from.page != move.to.page &&
              move.from.slot < static_cast<uint32_t>(args.from.tokens) &&
              move.to.slot < static_cast<uint32_t>(args.to.tokens) &&
              (move.header != kNoPage) == (args.to.header_head_bytes > 0);
  if (args.whole_pages) {
    const int64_t first = i / args.to.tokens * args.to.tokens;
    good = good && move.to.slot == i - first && move.to.page == args.moves[first].to.page;
  }
  if (!good) __trap();
}

// This lane's channels of K (value = 0) or V of one token.
__device__ const uint4* Source(const MoveArgs& args, const KvSlot& from, int head, int value) {
  const PagePart& part = args.from.part[value];
  return reinterpret_cast<const uint4*>(args.arena + from.page * kPageUnitBytes +
                                        int64_t{head} * args.from.head_bytes + part.codes +
                                        static_cast<int>(from.slot) * part.row_bytes) +
         threadIdx.x % 32;
}

__device__ uint8_t* Head(const MoveArgs& args, PageId page, int head) {
  return args.arena + page * kPageUnitBytes + int64_t{head} * args.to.head_bytes;
}

// Eight codes, the first in the lowest bits, to `bits` bytes.
template <int kBits>
__device__ void StoreCodes(const uint32_t (&codes)[kLane], uint8_t* row) {
  uint64_t packed = 0;
#pragma unroll
  for (int i = 0; i < kLane; ++i) packed |= uint64_t{codes[i]} << (i * kBits);
  uint8_t* to = row + threadIdx.x % 32 * kBits;
  if (kBits == 8) *reinterpret_cast<uint64_t*>(to) = packed;
  if (kBits == 4) *reinterpret_cast<uint32_t*>(to) = static_cast<uint32_t>(packed);
  if (kBits == 2) *reinterpret_cast<uint16_t*>(to) = static_cast<uint16_t>(packed);
  if (kBits == 1) *to = static_cast<uint8_t>(packed);
}

// One warp a (move, head, K or V): a scale and an offset per token and group. `first_value` is 1
// where only V has them; grid (moves, enough blocks for heads and parts).
template <int kBits>
__global__ void __launch_bounds__(kWarps * 32) PerTokenKernel(MoveArgs args, int first_value) {
  if (blockIdx.y == 0 && threadIdx.x == 0) CheckMove(args, blockIdx.x);
  const int parts = 2 - first_value, task = blockIdx.y * kWarps + threadIdx.x / 32;
  const int head = task / parts, value = first_value + task % parts;
  if (head >= args.kv_heads) return;
  const TokenMove move = args.moves[blockIdx.x];
  const bool active = threadIdx.x % 32 * kLane < args.dim;
  float x[kLane] = {};
  if (active) ToFloats(*Source(args, move.from, head, value), x);
  float min = active ? x[0] : INFINITY, max = active ? x[0] : -INFINITY;
#pragma unroll
  for (int i = 1; i < kLane; ++i) {
    min = active ? fminf(min, x[i]) : min;
    max = active ? fmaxf(max, x[i]) : max;
  }
  const PagePart& part = args.to.part[value];
  const int lane = threadIdx.x % 32, group = part.group * kLane >= args.dim ? 32 : part.group;
  for (int off = group / 2; off > 0; off /= 2) {  // 4, 8 or all lanes
    min = fminf(min, __shfl_xor_sync(~0u, min, off));
    max = fmaxf(max, __shfl_xor_sync(~0u, max, off));
  }
  const DeviceAffine a = Fit(min, max, kBits, args.rule.clip[value], args.rule.integer_offset);
  uint8_t* to = Head(args, move.to.page, head);
  const int slot = static_cast<int>(move.to.slot);
  if (!active) return;
  if (lane % group == 0) {
    auto* meta = reinterpret_cast<__half*>(to + part.meta) + lane / group * args.to.tokens;
    meta[slot] = a.scale;
    meta[part.scales + slot] = a.offset;
  }
  const float scale = __half2float(a.scale), offset = __half2float(a.offset);
  uint32_t codes[kLane];
#pragma unroll
  for (int i = 0; i < kLane; ++i) codes[i] = Code(x[i], scale, offset, kBits);
  StoreCodes<kBits>(codes, to + part.codes + slot * part.row_bytes);
}

// One warp a (page, head): K with a scale and an offset per channel. Grid (pages, heads / kWarps).
template <int kBits>
__global__ void __launch_bounds__(kWarps * 32) PerChannelKeyKernel(MoveArgs args) {
  const TokenMove* moves = args.moves + int64_t{blockIdx.x} * args.to.tokens;
  const int head = blockIdx.y * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (head >= args.kv_heads || lane * kLane >= args.dim) return;
  float min[kLane], max[kLane], x[kLane];
  ToFloats(*Source(args, moves[0].from, head, 0), min);
#pragma unroll
  for (int i = 0; i < kLane; ++i) max[i] = min[i];
  for (int t = 1; t < args.to.tokens; ++t) {
    ToFloats(*Source(args, moves[t].from, head, 0), x);
#pragma unroll
    for (int i = 0; i < kLane; ++i) {
      min[i] = fminf(min[i], x[i]);
      max[i] = fmaxf(max[i], x[i]);
    }
  }
  const PagePart& part = args.to.part[0];
  uint8_t* to = Head(args, moves[0].to.page, head);
  auto* meta = reinterpret_cast<__half*>(to + part.meta) + lane * kLane;
  float scale[kLane], offset[kLane];
#pragma unroll
  for (int i = 0; i < kLane; ++i) {
    const DeviceAffine a = Fit(min[i], max[i], kBits, args.rule.clip[0], args.rule.integer_offset);
    meta[i] = a.scale;
    meta[part.scales + i] = a.offset;
    scale[i] = __half2float(a.scale);
    offset[i] = __half2float(a.offset);
  }
  for (int t = 0; t < args.to.tokens; ++t) {
    ToFloats(*Source(args, moves[t].from, head, 0), x);
    uint32_t codes[kLane];
#pragma unroll
    for (int i = 0; i < kLane; ++i) codes[i] = Code(x[i], scale[i], offset[i], kBits);
    StoreCodes<kBits>(codes, to + part.codes + t * part.row_bytes);
  }
}

// A half's bits in the order of the numbers.
__device__ uint32_t OrderOf(uint32_t half) {
  return half & 0x8000u ? ~half & 0xffffu : half | 0x8000u;
}

// The numbers of rank `trimmed` from the smallest and from the largest, of each of this lane's
// channels over `count` moves: bit by bit, since halves have sixteen.
__device__ void TrimmedRange(const MoveArgs& args, const TokenMove* moves, int64_t count,
                             int64_t trimmed, int head, int value, float (&min)[kLane],
                             float (&max)[kLane]) {
  uint32_t low[kLane] = {}, high[kLane] = {};
  for (uint32_t bit = 0x8000; bit != 0; bit /= 2) {
    int below_low[kLane] = {}, below_high[kLane] = {};  // numbers below what `bit` would make
    for (int64_t t = 0; t < count; ++t) {
      const uint4 packed = *Source(args, moves[t].from, head, value);
      const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
      for (int i = 0; i < kLane; ++i) {
        const uint32_t x = OrderOf(words[i / 2] >> (i % 2 * 16) & 0xffffu);
        below_low[i] += x < (low[i] | bit) ? 1 : 0;
        below_high[i] += x < (high[i] | bit) ? 1 : 0;
      }
    }
#pragma unroll
    for (int i = 0; i < kLane; ++i) {
      if (below_low[i] <= trimmed) low[i] |= bit;
      if (below_high[i] <= count - 1 - trimmed) high[i] |= bit;
    }
  }
#pragma unroll
  for (int i = 0; i < kLane; ++i) {
    const auto half = [](uint32_t order) {
      const uint32_t bits = order & 0x8000u ? order & 0x7fffu : ~order & 0xffffu;
      return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
    };
    min[i] = half(low[i]);
    max[i] = half(high[i]);
  }
}

// One warp a (segment, head, K or V): a scale and an offset per channel over all of the segment's
// moves, into its header. Grid (moves, enough blocks for heads and parts): a warp whose move begins
// no segment has nothing to do.
template <int kBits>
__global__ void __launch_bounds__(kWarps * 32) SegmentKernel(MoveArgs args) {
  const int64_t begin = blockIdx.x;
  if (blockIdx.y == 0 && threadIdx.x == 0) CheckMove(args, begin);
  const TokenMove* moves = args.moves + begin;
  const PageId header = moves[0].header;
  if (begin > 0 && moves[-1].header == header) return;
  const int task = blockIdx.y * kWarps + threadIdx.x / 32, head = task / 2, value = task % 2;
  const int lane = threadIdx.x % 32;
  if (head >= args.kv_heads || lane * kLane >= args.dim) return;
  float min[kLane], max[kLane], x[kLane];
  ToFloats(*Source(args, moves[0].from, head, value), min);
#pragma unroll
  for (int i = 0; i < kLane; ++i) max[i] = min[i];
  int64_t count = 1;
  for (; begin + count < args.n && moves[count].header == header; ++count) {
    ToFloats(*Source(args, moves[count].from, head, value), x);
#pragma unroll
    for (int i = 0; i < kLane; ++i) {
      min[i] = fminf(min[i], x[i]);
      max[i] = fmaxf(max[i], x[i]);
    }
  }
  // Trimmed of quantize.h.
  const auto trimmed =
      static_cast<int64_t>(double{args.rule.quantile} * static_cast<double>(count - 1));
  if (trimmed > 0) TrimmedRange(args, moves, count, trimmed, head, value, min, max);
  const PagePart& part = args.to.part[value];
  auto* meta = reinterpret_cast<__half*>(args.arena + header * kPageUnitBytes +
                                         int64_t{head} * args.to.header_head_bytes + part.meta) +
               lane * kLane;
  float scale[kLane], offset[kLane];
#pragma unroll
  for (int i = 0; i < kLane; ++i) {
    const DeviceAffine a =
        Fit(min[i], max[i], kBits, args.rule.clip[value], args.rule.integer_offset);
    meta[i] = a.scale;
    meta[part.scales + i] = a.offset;
    scale[i] = __half2float(a.scale);
    offset[i] = __half2float(a.offset);
  }
  for (int64_t t = 0; t < count; ++t) {
    ToFloats(*Source(args, moves[t].from, head, value), x);
    uint32_t codes[kLane];
#pragma unroll
    for (int i = 0; i < kLane; ++i) codes[i] = Code(x[i], scale[i], offset[i], kBits);
    StoreCodes<kBits>(codes, Head(args, moves[t].to.page, head) + part.codes +
                                 static_cast<int>(moves[t].to.slot) * part.row_bytes);
  }
}

// One warp a (move, head, K or V), bits unchanged.
__global__ void __launch_bounds__(kWarps * 32) CopyKernel(MoveArgs args) {
  if (blockIdx.y == 0 && threadIdx.x == 0) CheckMove(args, blockIdx.x);
  const int task = blockIdx.y * kWarps + threadIdx.x / 32, head = task / 2, value = task % 2;
  if (head >= args.kv_heads || threadIdx.x % 32 * kLane >= args.dim) return;
  const TokenMove move = args.moves[blockIdx.x];
  *const_cast<uint4*>(Source(args, move.to, head, value)) = *Source(args, move.from, head, value);
}

template <int kBits>
void Launch(cudaStream_t stream, const MoveArgs& args, int64_t n) {
  if (args.to.header_head_bytes > 0) {
    const dim3 grid(static_cast<unsigned>(n),
                    static_cast<unsigned>(CeilDiv(args.kv_heads * 2, kWarps)));
    SegmentKernel<kBits><<<grid, kWarps * 32, 0, stream>>>(args);
    TESSERA_CUDA_CHECK_LAUNCH("SegmentKernel");
    return;
  }
  const bool key_per_channel = args.to.part[0].axis == Axis::kChannel;
  const int parts = key_per_channel ? 1 : 2;
  const dim3 grid(static_cast<unsigned>(n),
                  static_cast<unsigned>(CeilDiv(args.kv_heads * parts, kWarps)));
  PerTokenKernel<kBits><<<grid, kWarps * 32, 0, stream>>>(args, 2 - parts);
  TESSERA_CUDA_CHECK_LAUNCH("PerTokenKernel");
  if (!key_per_channel) return;
  const dim3 pages(static_cast<unsigned>(n / args.to.tokens),
                   static_cast<unsigned>(CeilDiv(args.kv_heads, kWarps)));
  PerChannelKeyKernel<kBits><<<pages, kWarps * 32, 0, stream>>>(args);
  TESSERA_CUDA_CHECK_LAUNCH("PerChannelKeyKernel");
}

}  // namespace

void LaunchMoveTokens(cudaStream_t stream, uint8_t* arena, const KvGeometry& geometry, Format to,
                      const MoveRule& rule, const TokenMove* moves, int64_t n) {
  const int dim = geometry.head_dim;
  TESSERA_CHECK(geometry.kv_heads > 0 && dim > 0 && dim % kLane == 0 && dim <= kMaxHeadDim);
  TESSERA_CHECK(HoldsTokens(to) && n >= 0 && (!FillsWholePages(to) || n % PageTokens(to) == 0));
  if (n == 0) return;
  const MoveArgs args{arena,
                      geometry.kv_heads,
                      dim,
                      PartsOf(Format::kRaw16, dim),
                      PartsOf(to, dim),
                      FillsWholePages(to),
                      rule,
                      moves,
                      n};
  switch (CodecOf(to, true).bits) {
    case 16: {
      const dim3 grid(static_cast<unsigned>(n),
                      static_cast<unsigned>(CeilDiv(geometry.kv_heads * 2, kWarps)));
      CopyKernel<<<grid, kWarps * 32, 0, stream>>>(args);
      TESSERA_CUDA_CHECK_LAUNCH("CopyKernel");
      return;
    }
    case 8:
      return Launch<8>(stream, args, n);
    case 4:
      return Launch<4>(stream, args, n);
    case 2:
      return Launch<2>(stream, args, n);
    default:
      return Launch<1>(stream, args, n);
  }
}

}  // namespace tessera::cuda
