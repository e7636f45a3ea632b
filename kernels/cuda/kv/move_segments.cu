// Moves tokens into formats with one scale per channel and segment (header pages).
#include "kernels/cuda/common/check.h"
#include "kernels/cuda/kv/move_tokens.cuh"

namespace tessera::cuda {
namespace {

// Returns a key for a half's bits that has the order of the numbers.
__device__ uint32_t OrderOf(uint32_t half) {
  return half & 0x8000u ? ~half & 0xffffu : half | 0x8000u;
}

// Finds the numbers of rank `trimmed` from the smallest and from the largest, for each of this
// lane's channels over `count` moves. It searches bit by bit, since a half has sixteen.
__device__ void TrimmedRange(const MoveArgs& args, const TokenMove* moves, int64_t count,
                             int64_t trimmed, const HeadLane& at, int value, float (&min)[kLane],
                             float (&max)[kLane]) {
  uint32_t low[kLane] = {}, high[kLane] = {};
  for (uint32_t bit = 0x8000; bit != 0; bit /= 2) {
    int below_low[kLane] = {},
        below_high[kLane] = {};  // numbers below the candidate with `bit` set
    for (int64_t t = 0; t < count; ++t) {
      const uint4 packed = *Source(args, moves[t].from, at, value);
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

// Computes one scale and offset per channel over all of a segment's moves, stores them in its
// header, and stores the codes. A block has one move, some heads, and K or V. It does nothing
// unless its move begins a segment.
template <int kBits>
__global__ void __launch_bounds__(kThreads) SegmentKernel(MoveArgs args) {
  const int64_t begin = blockIdx.x;
  const int value = blockIdx.z;
  if (blockIdx.y == 0 && value == 0 && threadIdx.x == 0) CheckMove(args, begin);
  const TokenMove* moves = args.moves + begin;
  const PageId header = moves[0].header;
  if (begin > 0 && moves[-1].header == header) return;
  const HeadLane at(args);
  if (!at.there) return;
  float min[kLane], max[kLane];
  ToFloats(*Source(args, moves[0].from, at, value), min);
#pragma unroll
  for (int i = 0; i < kLane; ++i) max[i] = min[i];
  int64_t count = 1;
  for (; begin + count < args.n && moves[count].header == header; ++count) {
    Widen(args, moves[count].from, at, value, min, max);
  }
  // The same as Trimmed in quantize.h.
  const auto trimmed =
      static_cast<int64_t>(double{args.rule.quantile} * static_cast<double>(count - 1));
  if (trimmed > 0) TrimmedRange(args, moves, count, trimmed, at, value, min, max);
  ChannelAffine affine;
  affine.Set<kBits>(
      args, value, at, min, max,
      args.arena + header * kPageUnitBytes + int64_t{at.head} * args.to.header_head_bytes);
#pragma unroll 4
  for (int64_t t = 0; t < count; ++t) affine.Store<kBits>(args, moves[t], at, value);
}

template <int kBits>
void Launch(cudaStream_t stream, const MoveArgs& args) {
  const dim3 grid(static_cast<unsigned>(args.n), HeadLane::Blocks(args), 2);
  SegmentKernel<kBits><<<grid, kThreads, 0, stream>>>(args);
  TESSERA_CUDA_CHECK_LAUNCH("SegmentKernel");
}

}  // namespace

void MoveSegments(cudaStream_t stream, const MoveArgs& args) {
  switch (args.to.part[1].bits) {
    case 4:
      return Launch<4>(stream, args);
    case 2:
      return Launch<2>(stream, args);
    default:
      return Launch<1>(stream, args);
  }
}

}  // namespace tessera::cuda
