// Attention on tensor cores: head dims 64 and 128, pages of any format.
#include <climits>

#include "kernels/cuda/add_tokens.cuh"
#include "kernels/cuda/check.h"
#include "kernels/cuda/code_pages.cuh"
#include "kernels/cuda/join_chunks.cuh"
#include "kernels/cuda/overlap.cuh"
#include "kernels/cuda/tensor_pages.cuh"
#include "kernels/cuda/tensor_prefill.cuh"

namespace tessera::cuda {
namespace {

template <Format kFormat, int kDim, int kColumns>
__device__ void AddPages(const PagedArgs& args, const DecodeUnit& unit, const float* q,
                         const KvRun& run, int low, int high, TensorSums<kDim>& sums) {
  const int g = threadIdx.x % 32 / 4;
  TensorQueries<kFormat, kDim> queries;
  const bool there = g < unit.queries;
  queries.Load(there, q + (there ? g : 0) * kDim, args.scale * 1.44269504088896341f);
  TensorPages<kFormat, kDim, kColumns>::Add(args, run, low, high, unit.kv_head, queries, sums);
}

constexpr uint32_t Bit(Format f) { return 1u << static_cast<int>(f); }
constexpr uint32_t kCodes = Bit(Format::kToken4) | Bit(Format::kToken2) | Bit(Format::kToken1);

// Formats whose tokens have several scales, for groups of channels.
constexpr bool HasGroups(Format f) { return CodecOf(f, true).group > 0; }
constexpr uint32_t AllWithGroups() {
  uint32_t formats = 0;
  for (int f = 0; f < kNumFormats; ++f) {
    if (HasGroups(static_cast<Format>(f))) formats |= 1u << f;
  }
  return formats;
}
constexpr uint32_t kGroups = AllWithGroups();

// Adds the unit's pages of formats with groups, if there are any, by CUDA cores in float32.
template <int kDim>
__device__ void AddGroups(const PagedArgs& args, const DecodeUnit& unit,
                          WarpAttention<kDim / 8, 1>& attention) {
  unit.ForEachRun(args, [&](const KvRun& run, int first, int low, int high) {
    if ((kGroups & Bit(run.format)) == 0) return;
    const int page = args.formats[static_cast<int>(run.format)].tokens;
    AddLowBits(args, run, first, low * page, min(high * page, run.tokens), unit.kv_head, attention);
  });
}

template <int kDim, int kColumns>
__device__ void AddLowBitPages(const PagedArgs& args, const DecodeUnit& unit, const float* q,
                               const KvRun& run, int low, int high, TensorSums<kDim>& sums) {
  switch (run.format) {
    case Format::kToken8:
      return AddPages<Format::kToken8, kDim, kColumns>(args, unit, q, run, low, high, sums);
    case Format::kToken4:
      return AddPages<Format::kToken4, kDim, kColumns>(args, unit, q, run, low, high, sums);
    case Format::kToken2:
      return AddPages<Format::kToken2, kDim, kColumns>(args, unit, q, run, low, high, sums);
    case Format::kToken1:
      return AddPages<Format::kToken1, kDim, kColumns>(args, unit, q, run, low, high, sums);
    case Format::kKivi4:
      return AddPages<Format::kKivi4, kDim, kColumns>(args, unit, q, run, low, high, sums);
    case Format::kKivi2:
      return AddPages<Format::kKivi2, kDim, kColumns>(args, unit, q, run, low, high, sums);
    case Format::kKivi1:
      return AddPages<Format::kKivi1, kDim, kColumns>(args, unit, q, run, low, high, sums);
    default:
      __trap();  // Supports refuses it
  }
}

// Query `query` of `sums`, whose lanes are joined, in the form in which chunks are kept and joined.
template <int kDim>
__device__ void Extract(const TensorSums<kDim>& sums, int query,
                        WarpAttention<kDim / 8, 1>& attention) {
  const int c = threadIdx.x % (kDim / 8), t = query / 2, e = query % 2;
  constexpr int kTiles = kDim / 16;
  attention.limit[0] = INT_MAX;
  attention.max[0] = __shfl_sync(~0u, sums.max[e], t) * 0.693147180559945309f;
  attention.sum[0] = __shfl_sync(~0u, sums.sum[e], t);
  const float offset = __shfl_sync(~0u, sums.offset[e], t);
  if constexpr (kDim == 128) {  // lane (g, t) has channels 16 g ..: columns 2 g and 2 g + 1
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float low = __shfl_sync(~0u, e == 0 ? sums.acc[i][0] : sums.acc[i][1], c / 2 * 4 + t);
      const float high = __shfl_sync(~0u, e == 0 ? sums.acc[i][2] : sums.acc[i][3], c / 2 * 4 + t);
      attention.acc[0][i] = (c % 2 == 0 ? low : high) + offset;
    }
  } else {
    static_assert(kDim == 64, "");
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float(&acc)[4] = sums.acc[i % kTiles];
      const float x = i < kTiles ? (e == 0 ? acc[0] : acc[1]) : (e == 0 ? acc[2] : acc[3]);
      attention.acc[0][i] = __shfl_sync(~0u, x, c * 4 + t) + offset;
    }
  }
}

template <Format kFormat, int kDim>
__device__ void AddCodes(const PagedArgs& args, const DecodeUnit& unit, const float* q,
                         const KvRun& run, int low, int high, CodeScratch<kDim>& scratch,
                         CodeSums<kDim>& sums) {
  CodeQuery<CodecOf(kFormat, false).bits, kDim> query;
  query.Load(q, args.scale * 1.44269504088896341f, scratch);
  CodePages<kFormat, kDim>::Add(args, run, low, high, unit.kv_head, query, scratch, sums);
}

// Joins in query `q` over the unit's pages of codes with a scale per token; there are some.
template <int kDim>
__device__ void AttendCodes(const PagedArgs& args, const DecodeUnit& unit, const float* q,
                            WarpAttention<kDim / 8, 1>& attention) {
  __shared__ CodeScratch<kDim> all_scratch[kThreads / 32];
  CodeScratch<kDim>& scratch = all_scratch[threadIdx.x / 32];
  CodeSums<kDim> sums;
  unit.ForEachRun(args, [&](const KvRun& run, int, int low, int high) {
    if ((kCodes >> static_cast<int>(run.format) & 1) == 0) return;
    switch (run.format) {
      case Format::kToken4:
        return AddCodes<Format::kToken4>(args, unit, q, run, low, high, scratch, sums);
      case Format::kToken2:
        return AddCodes<Format::kToken2>(args, unit, q, run, low, high, scratch, sums);
      default:
        return AddCodes<Format::kToken1>(args, unit, q, run, low, high, scratch, sums);
    }
  });
#pragma unroll
  for (int off = 1; off < 32; off *= 2) {
    sums.sum += __shfl_xor_sync(~0u, sums.sum, off);
    sums.offset += __shfl_xor_sync(~0u, sums.offset, off);
  }
  constexpr int kMine = kDim / 32;
  const int first = threadIdx.x % (kDim / 8) * 8 / kMine;
  float acc[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    acc[i] = __shfl_sync(~0u, sums.channels[i % kMine], first + i / kMine) + sums.offset;
  }
  attention.Join(0, sums.max * 0.693147180559945309f, sums.sum, acc);
}

// The unit's only query over the unit's pages: 16-bit pages are read by CUDA cores, which keep up
// with memory and round nothing to half. kCodesOnly: the others all have codes with a scale per
// token.
template <int kDim, bool kCodesOnly>
__device__ void AttendOneQuery(const PagedArgs& args, const DecodeUnit& unit,
                               WarpAttention<kDim / 8, 1>& attention) {
  const int kv_heads = args.kv.geometry.kv_heads;
  const float* q =
      args.qkv +
      (int64_t{args.query_begin[unit.s]} * (args.heads + 2 * kv_heads) + unit.first_head) * kDim;
  attention.Init(0, true, q, kDim, args.scale, INT_MAX);
  uint32_t formats = 0;
  unit.ForEachRun(args, [&](const KvRun& run, int first, int low, int high) {
    formats |= Bit(run.format);
    if (run.format != Format::kRaw16) return;
    constexpr int kPage = PageTokens(Format::kRaw16);
    AddRaw16(args, run, first, low * kPage, min(high * kPage, run.tokens), unit.kv_head, attention);
  });
  if constexpr (!kCodesOnly) {
    if (formats & kGroups) AddGroups<kDim>(args, unit, attention);
  }
  if (formats & (Bit(Format::kRaw16) | kGroups)) attention.JoinLanes();
  if (formats & kCodes) AttendCodes<kDim>(args, unit, q, attention);
  if constexpr (!kCodesOnly) {
    constexpr uint32_t kAdded = kCodes | kGroups | Bit(Format::kRaw16);
    if ((formats & ~kAdded) == 0) return;
    TensorSums<kDim> sums;
    sums.Clear();
    unit.ForEachRun(args, [&](const KvRun& run, int, int low, int high) {
      if (Bit(run.format) & kAdded) return;
      AddLowBitPages<kDim, 1>(args, unit, q, run, low, high, sums);
    });
    sums.JoinLanes();
    WarpAttention<kDim / 8, 1> other;
    Extract(sums, 0, other);
    attention.Join(0, other.max[0], other.sum[0], other.acc[0]);
  }
}

template <int kDim, bool kCodesOnly>
__device__ void DecodeOneQuery(const PagedArgs& args) {
  const int units = args.plan.decode_begin[args.sequences] * args.head_blocks();
  UnitQueue queue(&args.plan.next[0]);
  while (queue.Next(units)) {
    const DecodeUnit unit(args, queue.unit);
    WarpAttention<kDim / 8, 1> attention;
    AttendOneQuery<kDim, kCodesOnly>(args, unit, attention);
    if (unit.chunks > 1) {
      KeepPartial(args, unit.chunk, unit.first_head, 0, attention);
      if (!LastToEnd(args, unit)) continue;
      JoinPartials(args, unit.chunk_begin, unit.chunks, unit.first_head, 0, attention);
    }
    StoreDecoded(args, unit, unit.first_head, 0, attention);
  }
}

// Up to eight queries a KV head: all pages by tensor cores.
template <int kDim>
__device__ void DecodeGroup(const PagedArgs& args) {
  const int kv_heads = args.kv.geometry.kv_heads;
  const int units = args.plan.decode_begin[args.sequences] * args.head_blocks();
  UnitQueue queue(&args.plan.next[0]);
  while (queue.Next(units)) {
    const DecodeUnit unit(args, queue.unit);
    const float* q =
        args.qkv +
        (int64_t{args.query_begin[unit.s]} * (args.heads + 2 * kv_heads) + unit.first_head) * kDim;
    TensorSums<kDim> sums;
    sums.Clear();
    bool groups = false;
    unit.ForEachRun(args, [&](const KvRun& run, int, int low, int high) {
      if (run.format == Format::kRaw16) {
        AddPages<Format::kRaw16, kDim, 2>(args, unit, q, run, low, high, sums);
      } else if (kGroups & Bit(run.format)) {
        groups = true;
      } else {
        AddLowBitPages<kDim, 2>(args, unit, q, run, low, high, sums);
      }
    });
    sums.JoinLanes();
    WarpAttention<kDim / 8, 1> attention;
    // One query after the other reads pages with groups: right, if not fast.
    const auto extract = [&](int i) {
      Extract(sums, i, attention);
      if (!groups) return;
      WarpAttention<kDim / 8, 1> other;
      other.Init(0, true, q + i * kDim, kDim, args.scale, INT_MAX);
      AddGroups<kDim>(args, unit, other);
      other.JoinLanes();
      attention.Join(0, other.max[0], other.sum[0], other.acc[0]);
    };
    if (unit.chunks > 1) {
      for (int i = 0; i < unit.queries; ++i) {
        extract(i);
        KeepPartial(args, unit.chunk, unit.first_head + i, 0, attention);
      }
      if (!LastToEnd(args, unit)) continue;
    }
    for (int i = 0; i < unit.queries; ++i) {
      if (unit.chunks > 1) {
        Extract(sums, i, attention);
        JoinPartials(args, unit.chunk_begin, unit.chunks, unit.first_head + i, 0, attention);
      } else {
        extract(i);
      }
      StoreDecoded(args, unit, unit.first_head + i, 0, attention);
    }
  }
}

template <int kDim, bool kOneQuery>
__global__ void __launch_bounds__(kThreads, 2) TensorAttentionKernel(PagedArgs args) {
  LetNextKernelComeUp();
  WaitForEarlierKernels();
  if constexpr (kOneQuery) {
    DecodeOneQuery<kDim, false>(args);
  } else {
    DecodeGroup<kDim>(args);
  }
  TakePrefillUnits<kDim>(args);
}

// What most decode steps need and nothing else.
template <int kDim>
__global__ void __launch_bounds__(kThreads, 2) CodesDecodeKernel(PagedArgs args) {
  LetNextKernelComeUp();
  WaitForEarlierKernels();
  DecodeOneQuery<kDim, true>(args);
}

template <int kDim>
TensorAttention Made(int64_t group) {
  TensorAttention made{
      group == 1 ? 1 : 8, PrefillSharedBytes(kDim),
      group == 1 ? TensorAttentionKernel<kDim, true> : TensorAttentionKernel<kDim, false>};
  TESSERA_CUDA_CHECK(cudaFuncSetAttribute(made.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          made.shared_bytes));
  return made;
}

}  // namespace

TensorAttention TensorAttentionFor(int64_t dim, int64_t group) {
  TESSERA_CHECK(HasTensorAttention(dim));
  return dim == 64 ? Made<64>(group) : Made<128>(group);
}

TensorAttention TensorDecodeFor(int64_t dim, int64_t group, uint32_t formats) {
  if (group != 1 || (formats & ~(kCodes | Bit(Format::kRaw16))) != 0) {
    return TensorAttentionFor(dim, group);
  }
  TESSERA_CHECK(HasTensorAttention(dim));
  return {1, 0, dim == 64 ? CodesDecodeKernel<64> : CodesDecodeKernel<128>};
}

}  // namespace tessera::cuda
