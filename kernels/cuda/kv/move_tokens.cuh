// Code that the kernels of MoveTokens share (move_tokens.h).
#pragma once

#include <cuda_fp16.h>

#include "kernels/cuda/common/halves.cuh"
#include "kernels/cuda/kv/move_tokens.h"

namespace tessera::cuda {

constexpr int kThreads = 128, kLane = 8;  // kLane: channels per lane, so head dims up to 256
constexpr int kMaxHeadDim = 32 * kLane;

struct MoveArgs {
  uint8_t* arena;
  int kv_heads, dim;
  int lane_bits;  // 2^lane_bits lanes, at most a warp, share a row (one head's K or V of a token)
  PageParts from, to;
  bool whole_pages;
  MoveRule rule;
  const TokenMove* moves;
  int64_t n;
};

struct DeviceAffine {
  __half scale, offset;
};

// The same as FitAffine in quantize.h.
__device__ inline DeviceAffine Fit(float min, float max, int bits, float clip,
                                   bool integer_offset) {
  min = __fadd_rn(min, 0.0f);
  const float lo = __fmul_rn(clip, min), hi = __fmul_rn(clip, max);
  const __half scale = ToHalf(__fdiv_rn(__fsub_rn(hi, lo), static_cast<float>((1 << bits) - 1)));
  const float s = __half2float(scale);
  if (!(s > 0)) return {__float2half_rn(1.0f), ToHalf(min)};
  return {scale, ToHalf(integer_offset ? __fmul_rn(s, rintf(__fdiv_rn(lo, s))) : lo)};
}

// The same as AffineCode in quantize.h. The quotient takes long to compute, so it uses a product
// with the scale's inverse, whose error is below 256 * 2^-22. Only near a half can the product
// round to another code, and only there the quotient is computed. Adding 2^23 rounds to an integer,
// which is then in the lowest bits; NaN becomes 0.
__device__ inline uint32_t Code(float x, float scale, float inverse, float offset, int bits) {
  const float from_offset = __fsub_rn(x, offset);
  const auto clamped = [bits](float steps) {
    return fminf(fmaxf(steps, 0), static_cast<float>((1 << bits) - 1));
  };
  const float steps = clamped(__fmul_rn(from_offset, inverse));
  float rounded = __fadd_rn(steps, 0x1p23f);
  if (fabsf(__fsub_rn(steps, __fsub_rn(rounded, 0x1p23f))) > 0.4999f) {
    rounded = __fadd_rn(clamped(__fdiv_rn(from_offset, scale)), 0x1p23f);
  }
  return __float_as_uint(rounded) & 0xff;
}

__device__ inline void CheckMove(const MoveArgs& args, int64_t i) {
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

// The head and the channels that a thread of a block works on. The lanes of a row are consecutive
// threads, and so are heads.
struct HeadLane {
  int head, lane;
  bool there;  // the head exists and the lane has channels

  __device__ explicit HeadLane(const MoveArgs& args)
      : head((blockIdx.y * kThreads + threadIdx.x) >> args.lane_bits),
        lane(threadIdx.x & ((1 << args.lane_bits) - 1)),
        there(head < args.kv_heads && lane * kLane < args.dim) {}
  static unsigned Blocks(const MoveArgs& args) {  // grid's y for all heads
    return static_cast<unsigned>(CeilDiv(args.kv_heads << args.lane_bits, kThreads));
  }
};

// Returns the lane's channels of K (value = 0) or V of one token.
__device__ inline const uint4* Source(const MoveArgs& args, const KvSlot& from, const HeadLane& at,
                                      int value) {
  const PagePart& part = args.from.part[value];
  return reinterpret_cast<const uint4*>(args.arena + from.page * kPageUnitBytes +
                                        int64_t{at.head} * args.from.head_bytes + part.codes +
                                        static_cast<int>(from.slot) * part.row_bytes) +
         at.lane;
}

__device__ inline uint8_t* Head(const MoveArgs& args, PageId page, int head) {
  return args.arena + page * kPageUnitBytes + int64_t{head} * args.to.head_bytes;
}

// Packs eight codes, the first in the lowest bits, into `bits` bytes.
template <int kBits>
__device__ inline void StoreCodes(const uint32_t (&codes)[kLane], uint8_t* row, int lane) {
  uint64_t packed = 0;
#pragma unroll
  for (int i = 0; i < kLane; ++i) packed |= uint64_t{codes[i]} << (i * kBits);
  uint8_t* to = row + lane * kBits;
  if (kBits == 8) *reinterpret_cast<uint64_t*>(to) = packed;
  if (kBits == 4) *reinterpret_cast<uint32_t*>(to) = static_cast<uint32_t>(packed);
  if (kBits == 2) *reinterpret_cast<uint16_t*>(to) = static_cast<uint16_t>(packed);
  if (kBits == 1) *to = static_cast<uint8_t>(packed);
}

// The scales and offsets of a lane's channels.
struct ChannelAffine {
  float scale[kLane], inverse[kLane], offset[kLane];

  // Fits them to the channels' ranges and stores them in the metadata: all channels' scales, then
  // offsets.
  template <int kBits>
  __device__ void Set(const MoveArgs& args, int value, const HeadLane& at,
                      const float (&min)[kLane], const float (&max)[kLane], uint8_t* head_meta) {
    const PagePart& part = args.to.part[value];
    auto* meta = reinterpret_cast<__half*>(head_meta + part.meta) + at.lane * kLane;
#pragma unroll
    for (int i = 0; i < kLane; ++i) {
      const DeviceAffine a =
          Fit(min[i], max[i], kBits, args.rule.clip[value], args.rule.integer_offset);
      meta[i] = a.scale;
      meta[part.scales + i] = a.offset;
      scale[i] = __half2float(a.scale);
      inverse[i] = __frcp_rn(scale[i]);
      offset[i] = __half2float(a.offset);
    }
  }
  template <int kBits>
  __device__ void Store(const MoveArgs& args, const TokenMove& move, const HeadLane& at,
                        int value) const {
    float x[kLane];
    ToFloats(*Source(args, move.from, at, value), x);
    uint32_t codes[kLane];
#pragma unroll
    for (int i = 0; i < kLane; ++i) {
      codes[i] = Code(x[i], scale[i], inverse[i], offset[i], kBits);
    }
    const PagePart& part = args.to.part[value];
    StoreCodes<kBits>(codes,
                      Head(args, move.to.page, at.head) + part.codes +
                          static_cast<int>(move.to.slot) * part.row_bytes,
                      at.lane);
  }
};

// Extends the channels' ranges by one token.
__device__ inline void Widen(const MoveArgs& args, const KvSlot& from, const HeadLane& at,
                             int value, float (&min)[kLane], float (&max)[kLane]) {
  float x[kLane];
  ToFloats(*Source(args, from, at, value), x);
#pragma unroll
  for (int i = 0; i < kLane; ++i) {
    min[i] = fminf(min[i], x[i]);
    max[i] = fmaxf(max[i], x[i]);
  }
}

// Moves into a format with headers (move_segments.cu).
void MoveSegments(cudaStream_t stream, const MoveArgs& args);

}  // namespace tessera::cuda
