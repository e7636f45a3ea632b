#include "kernels/cuda/common/check.h"
#include "kernels/cuda/kv/move_tokens.cuh"

namespace tessera::cuda {
namespace {

constexpr int kMoves = 4;  // moves per block, whose loads overlap

// Quantizes with one scale and offset per token and group; V only if `first_value` is 1. A block
// has kMoves moves and some heads.
template <int kBits>
__global__ void __launch_bounds__(kThreads) PerTokenKernel(MoveArgs args, int first_value) {
  const int64_t first = int64_t{blockIdx.x} * kMoves;
  const int count = static_cast<int>(min(int64_t{kMoves}, args.n - first));
  if (blockIdx.y == 0 && threadIdx.x < count) CheckMove(args, first + threadIdx.x);
  const HeadLane at(args);
  const TokenMove* moves = args.moves + first;
  for (int value = first_value; value < 2; ++value) {
    const PagePart& part = args.to.part[value];
    const int group = part.group * kLane >= args.dim ? 1 << args.lane_bits : part.group;
    uint4 rows[kMoves] = {};
#pragma unroll
    for (int m = 0; m < kMoves; ++m) {
      if (at.there && m < count) rows[m] = *Source(args, moves[m].from, at, value);
    }
#pragma unroll
    for (int m = 0; m < kMoves; ++m) {
      if (m >= count) break;
      float x[kLane];
      ToFloats(rows[m], x);
      float low = at.there ? x[0] : INFINITY, high = at.there ? x[0] : -INFINITY;
#pragma unroll
      for (int i = 1; i < kLane; ++i) {
        low = at.there ? fminf(low, x[i]) : low;
        high = at.there ? fmaxf(high, x[i]) : high;
      }
      for (int off = group / 2; off > 0; off /= 2) {
        low = fminf(low, __shfl_xor_sync(~0u, low, off));
        high = fmaxf(high, __shfl_xor_sync(~0u, high, off));
      }
      if (!at.there) continue;
      const DeviceAffine a = Fit(low, high, kBits, args.rule.clip[value], args.rule.integer_offset);
      const KvSlot to_slot = moves[m].to;
      uint8_t* to = Head(args, to_slot.page, at.head);
      const int slot = static_cast<int>(to_slot.slot);
      if ((at.lane & (group - 1)) == 0) {
        auto* meta = reinterpret_cast<__half*>(to + part.meta) + at.lane / group * args.to.tokens;
        meta[slot] = a.scale;
        meta[part.scales + slot] = a.offset;
      }
      const float scale = __half2float(a.scale), offset = __half2float(a.offset);
      const float inverse = __frcp_rn(scale);
      uint32_t codes[kLane];
#pragma unroll
      for (int i = 0; i < kLane; ++i) codes[i] = Code(x[i], scale, inverse, offset, kBits);
      StoreCodes<kBits>(codes, to + part.codes + slot * part.row_bytes, at.lane);
    }
  }
}

// Quantizes K with one scale and offset per channel. A block has one page and some heads.
template <int kBits>
__global__ void __launch_bounds__(kThreads) PerChannelKeyKernel(MoveArgs args) {
  const TokenMove* moves = args.moves + int64_t{blockIdx.x} * args.to.tokens;
  const HeadLane at(args);
  if (!at.there) return;
  float min[kLane], max[kLane];
  ToFloats(*Source(args, moves[0].from, at, 0), min);
#pragma unroll
  for (int i = 0; i < kLane; ++i) max[i] = min[i];
#pragma unroll 4
  for (int t = 1; t < args.to.tokens; ++t) Widen(args, moves[t].from, at, 0, min, max);
  ChannelAffine affine;
  affine.Set<kBits>(args, 0, at, min, max, Head(args, moves[0].to.page, at.head));
#pragma unroll 4
  for (int t = 0; t < args.to.tokens; ++t) affine.Store<kBits>(args, moves[t], at, 0);
}

// Copies the bits. A block has one move and some heads.
__global__ void __launch_bounds__(kThreads) CopyKernel(MoveArgs args) {
  if (blockIdx.y == 0 && threadIdx.x == 0) CheckMove(args, blockIdx.x);
  const HeadLane at(args);
  if (!at.there) return;
  const TokenMove move = args.moves[blockIdx.x];
  const uint4 k = *Source(args, move.from, at, 0), v = *Source(args, move.from, at, 1);
  *const_cast<uint4*>(Source(args, move.to, at, 0)) = k;
  *const_cast<uint4*>(Source(args, move.to, at, 1)) = v;
}

template <int kBits>
void Launch(cudaStream_t stream, const MoveArgs& args) {
  const unsigned heads = HeadLane::Blocks(args);
  const bool key_per_channel = args.to.part[0].axis == Axis::kChannel;
  const dim3 grid(static_cast<unsigned>(CeilDiv<int64_t>(args.n, kMoves)), heads);
  PerTokenKernel<kBits><<<grid, kThreads, 0, stream>>>(args, key_per_channel ? 1 : 0);
  TESSERA_CUDA_CHECK_LAUNCH("PerTokenKernel");
  if (!key_per_channel) return;
  const auto pages = static_cast<unsigned>(args.n / args.to.tokens);
  PerChannelKeyKernel<kBits><<<dim3(pages, heads), kThreads, 0, stream>>>(args);
  TESSERA_CUDA_CHECK_LAUNCH("PerChannelKeyKernel");
}

}  // namespace

void LaunchMoveTokens(cudaStream_t stream, uint8_t* arena, const KvGeometry& geometry, Format to,
                      const MoveRule& rule, const TokenMove* moves, int64_t n) {
  const int dim = geometry.head_dim;
  TESSERA_CHECK(geometry.kv_heads > 0 && dim > 0 && dim % kLane == 0 && dim <= kMaxHeadDim);
  TESSERA_CHECK(HoldsTokens(to) && n >= 0 && (!FillsWholePages(to) || n % PageTokens(to) == 0));
  if (n == 0) return;
  int lane_bits = 0;
  while (kLane << lane_bits < dim) ++lane_bits;
  const MoveArgs args{arena,
                      geometry.kv_heads,
                      dim,
                      lane_bits,
                      PartsOf(Format::kRaw16, dim),
                      PartsOf(to, dim),
                      FillsWholePages(to),
                      rule,
                      moves,
                      n};
  if (args.to.header_head_bytes > 0) return MoveSegments(stream, args);
  switch (args.to.part[1].bits) {
    case 16:
      CopyKernel<<<dim3(static_cast<unsigned>(n), HeadLane::Blocks(args)), kThreads, 0, stream>>>(
          args);
      TESSERA_CUDA_CHECK_LAUNCH("CopyKernel");
      return;
    case 8:
      return Launch<8>(stream, args);
    case 4:
      return Launch<4>(stream, args);
    case 2:
      return Launch<2>(stream, args);
    default:
      return Launch<1>(stream, args);
  }
}

}  // namespace tessera::cuda
