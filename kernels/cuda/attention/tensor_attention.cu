// Decode attention on tensor cores, for head dims 64 and 128 and pages of any format, and the
// choice of kernels. This file exceeds 300 lines because both decode kernels share its helpers for
// each group of formats.
#include <climits>
#include <type_traits>

#include "kernels/cuda/attention/decode/code_pages.cuh"
#include "kernels/cuda/attention/decode/tensor_pages.cuh"
#include "kernels/cuda/attention/paged/add_tokens.cuh"
#include "kernels/cuda/attention/paged/merge_chunks.cuh"
#include "kernels/cuda/attention/prefill/tensor_prefill.cuh"
#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/programmatic_launch.cuh"

namespace tessera::cuda {
namespace {

template <Format kFormat, int kDim, int kColumns>
__device__ void AddPages(const PagedArgs& args, const DecodeWork& work, const float* q,
                         const KvRun& run, int low, int high, TensorSums<kDim>& sums) {
  const int g = threadIdx.x % 32 / 4;
  TensorQueries<kFormat, kDim> queries;
  const bool there = g < work.queries;
  queries.Load(there, q + (there ? g : 0) * kDim, args.scale * 1.44269504088896341f);
  TensorPages<kFormat, kDim, kColumns>::Add(args, run, low, high, work.kv_head, queries, sums);
}

constexpr uint32_t Bit(Format f) { return 1u << static_cast<int>(f); }

// The formats that a kernel can read in addition to RAW16. A kernel that only reads what most steps
// need is faster.
enum class Reads { kAll, kCodes /* with a scale per token */, kToken1 };
// Returns the blocks per multiprocessor. A 1-bit page has so few bytes that products, not memory,
// are the bottleneck. More warps with fewer registers hide more of that, if there is work for all.
constexpr int BlocksFor(Reads reads) { return reads == Reads::kToken1 ? 4 : 2; }
// Returns the formats that the kernel reads as codes (code_pages.cuh).
constexpr uint32_t CodesOf(Reads reads) {
  constexpr uint32_t kTokens = Bit(Format::kToken4) | Bit(Format::kToken2) | Bit(Format::kToken1);
  constexpr uint32_t kKivi = Bit(Format::kKivi4) | Bit(Format::kKivi2) | Bit(Format::kKivi1);
  return reads == Reads::kToken1  ? Bit(Format::kToken1)
         : reads == Reads::kCodes ? kTokens
                                  : kTokens | kKivi;
}

// Returns the formats that CUDA cores read in float32: those with several scales per token, for
// groups of channels, and those with scales in a header.
constexpr uint32_t AllRare() {
  uint32_t formats = 0;
  for (int f = 0; f < kNumFormats; ++f) {
    const auto format = static_cast<Format>(f);
    if (CodecOf(format, true).group > 0 || HasHeader(format)) formats |= Bit(format);
  }
  return formats;
}
constexpr uint32_t kRare = AllRare();

// Adds the work item's pages of such formats, if any, to its query `query`.
template <int kDim>
__device__ void AddRare(const PagedArgs& args, const DecodeWork& work, int query,
                        WarpAttention<kDim / 8, 1>& attention) {
  work.ForEachRun(args, [&](const KvRun& run, int first, int low, int high) {
    if ((kRare & Bit(run.format)) == 0) return;
    const int page = args.formats[static_cast<int>(run.format)].tokens;
    AddMapped(args, run, first, low * page, min(high * page, run.tokens), work.kv_head, attention,
              [&](int) {
                return int64_t{args.query_begin[work.s]} * args.heads + work.first_head + query;
              });
  });
}

template <int kDim>
__device__ void AddLowBitPages(const PagedArgs& args, const DecodeWork& work, const float* q,
                               const KvRun& run, int low, int high, TensorSums<kDim>& sums) {
  switch (run.format) {
    case Format::kToken8:
      return AddPages<Format::kToken8, kDim, 2>(args, work, q, run, low, high, sums);
    case Format::kToken4:
      return AddPages<Format::kToken4, kDim, 2>(args, work, q, run, low, high, sums);
    case Format::kToken2:
      return AddPages<Format::kToken2, kDim, 2>(args, work, q, run, low, high, sums);
    case Format::kToken1:
      return AddPages<Format::kToken1, kDim, 2>(args, work, q, run, low, high, sums);
    case Format::kKivi4:
      return AddPages<Format::kKivi4, kDim, 2>(args, work, q, run, low, high, sums);
    case Format::kKivi2:
      return AddPages<Format::kKivi2, kDim, 2>(args, work, q, run, low, high, sums);
    case Format::kKivi1:
      return AddPages<Format::kKivi1, kDim, 2>(args, work, q, run, low, high, sums);
    default:
      __trap();  // a format that was added later
  }
}

// Extracts query `query` of `sums`, whose lanes are merged, into the form in which chunks are
// stored and merged.
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
__device__ void AddCodes(const PagedArgs& args, const DecodeWork& work, const float* q,
                         const KvRun& run, int low, int high, CodeScratch<kDim>& scratch,
                         CodeSums<kDim>& sums) {
  CodePages<kFormat, kDim>::Add(args, run, low, high, work.kv_head, q,
                                args.scale * 1.44269504088896341f, scratch, sums);
}

// Merges the attention of query `q` over the work item's pages of codes. REQUIRES: it has some.
template <int kDim, Reads kReads>
__device__ void AttendCodes(const PagedArgs& args, const DecodeWork& work, const float* q,
                            WarpAttention<kDim / 8, 1>& attention) {
  __shared__ CodeScratch<kDim> all_scratch[kThreads / 32];
  CodeScratch<kDim>& scratch = all_scratch[threadIdx.x / 32];
  CodeSums<kDim> sums;
  work.ForEachRun(args, [&](const KvRun& run, int, int low, int high) {
    const auto add = [&](auto format) {
      constexpr Format kFormat = decltype(format)::value;
      if constexpr ((CodesOf(kReads) & Bit(kFormat)) != 0) {
        if (run.format != kFormat) return;
        AddCodes<kFormat>(args, work, q, run, low, high, scratch, sums);
      }
    };
    add(std::integral_constant<Format, Format::kToken4>());
    add(std::integral_constant<Format, Format::kToken2>());
    add(std::integral_constant<Format, Format::kToken1>());
    add(std::integral_constant<Format, Format::kKivi4>());
    add(std::integral_constant<Format, Format::kKivi2>());
    add(std::integral_constant<Format, Format::kKivi1>());
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
  attention.Merge(0, sums.max * 0.693147180559945309f, sums.sum, acc);
}

// Computes the work item's only query over its pages. CUDA cores read 16-bit pages: they keep up
// with memory and do not round to half.
template <int kDim, Reads kReads>
__device__ void AttendOneQuery(const PagedArgs& args, const DecodeWork& work,
                               WarpAttention<kDim / 8, 1>& attention) {
  const int kv_heads = args.kv.geometry.kv_heads;
  const float* q =
      args.qkv +
      (int64_t{args.query_begin[work.s]} * (args.heads + 2 * kv_heads) + work.first_head) * kDim;
  attention.Init(0, true, q, kDim, args.scale, INT_MAX);
  uint32_t formats = 0;
  work.ForEachRun(args, [&](const KvRun& run, int first, int low, int high) {
    formats |= Bit(run.format);
    if (run.format != Format::kRaw16) return;
    constexpr int kPage = PageTokens(Format::kRaw16);
    AddRaw16(args, run, first, low * kPage, min(high * kPage, run.tokens), work.kv_head, attention);
  });
  if constexpr (kReads == Reads::kAll) {
    if (formats & kRare) AddRare<kDim>(args, work, 0, attention);
  }
  if (formats & (Bit(Format::kRaw16) | kRare)) attention.MergeLanes();
  if (formats & CodesOf(kReads)) AttendCodes<kDim, kReads>(args, work, q, attention);
  if constexpr (kReads == Reads::kAll) {
    if ((formats & Bit(Format::kToken8)) == 0) return;
    TensorSums<kDim> sums;
    sums.Clear();
    work.ForEachRun(args, [&](const KvRun& run, int, int low, int high) {
      if (run.format != Format::kToken8) return;
      AddPages<Format::kToken8, kDim, 1>(args, work, q, run, low, high, sums);
    });
    sums.MergeLanes();
    WarpAttention<kDim / 8, 1> other;
    Extract(sums, 0, other);
    attention.Merge(0, other.max[0], other.sum[0], other.acc[0]);
  }
}

template <int kDim, Reads kReads>
__global__ void __launch_bounds__(kThreads, BlocksFor(kReads))
    DecodeOneQueryKernel(PagedArgs args) {
  ForEachDecodeWork(args, [&](const DecodeWork& work) {
    WarpAttention<kDim / 8, 1> attention;
    AttendOneQuery<kDim, kReads>(args, work, attention);
    if (work.chunks > 1) {
      StorePartial(args, work.chunk, work.first_head, 0, attention);
      if (!IsLastChunk(args, work)) return;
      MergePartials(args, work.chunk_begin, work.chunks, work.first_head, 0, attention);
    }
    StoreDecoded(args, work, work.first_head, 0, attention);
  });
}

// Decodes up to eight queries per KV head: tensor cores read all pages.
template <int kDim>
__global__ void __launch_bounds__(kThreads, 2) DecodeGroupKernel(PagedArgs args) {
  const int kv_heads = args.kv.geometry.kv_heads;
  ForEachDecodeWork(args, [&](const DecodeWork& work) {
    const float* q =
        args.qkv +
        (int64_t{args.query_begin[work.s]} * (args.heads + 2 * kv_heads) + work.first_head) * kDim;
    TensorSums<kDim> sums;
    sums.Clear();
    bool rare = false;
    work.ForEachRun(args, [&](const KvRun& run, int, int low, int high) {
      if (run.format == Format::kRaw16) {
        AddPages<Format::kRaw16, kDim, 2>(args, work, q, run, low, high, sums);
      } else if (kRare & Bit(run.format)) {
        rare = true;
      } else {
        AddLowBitPages<kDim>(args, work, q, run, low, high, sums);
      }
    });
    sums.MergeLanes();
    WarpAttention<kDim / 8, 1> attention;
    // Queries read pages of rare formats one after the other: correct, not fast.
    const auto extract = [&](int i) {
      Extract(sums, i, attention);
      if (!rare) return;
      WarpAttention<kDim / 8, 1> other;
      other.Init(0, true, q + i * kDim, kDim, args.scale, INT_MAX);
      AddRare<kDim>(args, work, i, other);
      other.MergeLanes();
      attention.Merge(0, other.max[0], other.sum[0], other.acc[0]);
    };
    if (work.chunks > 1) {
      for (int i = 0; i < work.queries; ++i) {
        extract(i);
        StorePartial(args, work.chunk, work.first_head + i, 0, attention);
      }
      if (!IsLastChunk(args, work)) return;
    }
    for (int i = 0; i < work.queries; ++i) {
      if (work.chunks > 1) {
        Extract(sums, i, attention);
        MergePartials(args, work.chunk_begin, work.chunks, work.first_head + i, 0, attention);
      } else {
        extract(i);
      }
      StoreDecoded(args, work, work.first_head + i, 0, attention);
    }
  });
}

template <int kDim>
__global__ void __launch_bounds__(kThreads, 2) PrefillKernel(PagedArgs args) {
  SynchronizeGridDependency();
  TriggerDependentLaunch();
  RunPrefillWork<kDim>(args);
}

template <int kDim>
TensorKernel DecodeFor(int64_t group, uint32_t formats, bool fills_device) {
  if (group > 1) return {DecodeGroupKernel<kDim>, 8};
  const auto are = [&](Reads reads) {
    return (formats & ~(CodesOf(reads) | Bit(Format::kRaw16))) == 0;
  };
  if (are(Reads::kToken1) && formats != Bit(Format::kRaw16) && fills_device) {
    return {DecodeOneQueryKernel<kDim, Reads::kToken1>, 1};
  }
  if (are(Reads::kCodes)) return {DecodeOneQueryKernel<kDim, Reads::kCodes>, 1};
  return {DecodeOneQueryKernel<kDim, Reads::kAll>, 1};
}

}  // namespace

TensorKernel TensorDecodeFor(int64_t dim, int64_t group, uint32_t formats, bool fills_device) {
  TESSERA_CHECK(HasTensorAttention(dim));
  return dim == 64 ? DecodeFor<64>(group, formats, fills_device)
                   : DecodeFor<128>(group, formats, fills_device);
}

TensorKernel TensorPrefillFor(int64_t dim) {
  TESSERA_CHECK(HasTensorAttention(dim));
  const TensorKernel made{dim == 64 ? PrefillKernel<64> : PrefillKernel<128>, kPrefillRows,
                          kThreads, PrefillSharedBytes(static_cast<int>(dim))};
  TESSERA_CUDA_CHECK(cudaFuncSetAttribute(made.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          made.shared_bytes));
  return made;
}

}  // namespace tessera::cuda
