// The host side of paged attention and its float32 kernels. This file exceeds 300 lines because the
// choice of kernels, their arguments and their launches belong together.
#include <algorithm>
#include <climits>
#include <utility>

#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/attention/logit_maps.h"
#include "kernels/cuda/attention/paged/add_tokens.cuh"
#include "kernels/cuda/attention/paged/merge_chunks.cuh"
#include "kernels/cuda/common/check.h"
#include "kernels/cuda/common/programmatic_launch.cuh"

namespace tessera::cuda {
namespace {

constexpr int kWarps = 4;  // warps per block; each takes its own work
constexpr int kMaxWorkPerWarp = 8;
constexpr int64_t kAnyRows = 1 << 30;  // rows per sequence, if unknown

// Returns the minimum of blocks per multiprocessor: more loads in flight gain more than a few
// spilled registers lose.
constexpr int MinBlocks(int lanes, int queries) {
  return lanes > 16 || queries > 4 ? 2 : queries > 2 ? 3 : 4;
}

template <int kLanes, int kQueries>
__global__ void __launch_bounds__(kWarps * 32, MinBlocks(kLanes, kQueries))
    DecodeKernel(PagedArgs args) {
  const int kv_heads = args.kv.geometry.kv_heads, dim = args.kv.geometry.head_dim;
  ForEachDecodeWork(args, [&](const DecodeWork& work) {
    const float* q =
        args.qkv +
        (int64_t{args.query_begin[work.s]} * (args.heads + 2 * kv_heads) + work.first_head) * dim;
    WarpAttention<kLanes, kQueries> attention;
#pragma unroll
    for (int g = 0; g < kQueries; ++g) {
      const bool there = g < work.queries;
      attention.Init(g, there, q + (there ? g : 0) * dim, dim, args.scale, INT_MAX);
    }
    work.ForEachRun(args, [&](const KvRun& run, int first, int low, int high) {
      const int page = args.formats[static_cast<int>(run.format)].tokens;
      AddRun(args, run, first, low * page, min(high * page, run.tokens), work.kv_head, attention,
             [&](int g) {
               return int64_t{args.query_begin[work.s]} * args.heads + work.first_head + g;
             });
    });
    attention.MergeLanes();
    const bool alone = work.chunks == 1;
    if (!alone) {
#pragma unroll
      for (int g = 0; g < kQueries; ++g) {
        if (g < work.queries) StorePartial(args, work.chunk, work.first_head + g, g, attention);
      }
      if (!IsLastChunk(args, work)) return;
    }
#pragma unroll
    for (int g = 0; g < kQueries; ++g) {
      if (g >= work.queries) continue;
      const int head = work.first_head + g;
      if (!alone) {
        MergePartials(args, work.chunk_begin, work.chunks, head, g, attention);
      }
      StoreDecoded(args, work, head, g, attention);
    }
  });
}

template <int kLanes, int kQueries>
__global__ void __launch_bounds__(kWarps * 32) PrefillKernel(PagedArgs args) {
  SynchronizeGridDependency();
  const int kv_heads = args.kv.geometry.kv_heads, dim = args.kv.geometry.head_dim;
  const int items = args.plan.prefill_begin[args.sequences] * kv_heads;
  const int64_t row_floats = int64_t{args.heads + 2 * kv_heads} * dim;
  while (true) {
    const int next = NextWork(&args.plan.next[1]);
    if (next >= items) return;
    const PrefillWork work(args, items - 1 - next);  // last rows first: they see most tokens
    WarpAttention<kLanes, kQueries> attention;
#pragma unroll
    for (int g = 0; g < kQueries; ++g) {
      const bool there = work.first + g < work.queries;
      const int i = there ? work.first + g : work.first;
      const float* q = args.qkv + work.Row(i) * row_floats + work.Head(i) * dim;
      attention.Init(g, there, q, dim, args.scale, work.Limit(i));
    }
    const int end = work.Limit(min(work.first + kQueries, work.queries) - 1);
    int first = 0;
    for (int r = args.kv.run_begin[work.s]; r < args.kv.run_begin[work.s + 1] && first < end; ++r) {
      const KvRun run = args.kv.runs[r];
      AddRun(
          args, run, first, 0, min(end - first, run.tokens), work.kv_head, attention,
          [&](int g) { return work.Row(work.first + g) * args.heads + work.Head(work.first + g); });
      first += run.tokens;
    }
    attention.MergeLanes();
#pragma unroll
    for (int g = 0; g < kQueries; ++g) {
      const int i = work.first + g;
      attention.Store(g, dim, args.Transformed(work.s),
                      args.out + (work.Row(i) * args.heads + work.Head(i)) * dim);
    }
  }
}

// Only runs of these formats may have a LogitMap (cache/policy/storage.h).
constexpr uint32_t FormatsWithHeaders() {
  uint32_t formats = 0;
  for (int f = 0; f < kNumFormats; ++f) formats |= HasHeader(static_cast<Format>(f)) ? 1u << f : 0;
  return formats;
}

using Kernels = PagedAttention::Kernels;

// Head dims up to 64 and 128 have a decode kernel for every group size; other dims are rare.
Kernels KernelsFor(int64_t dim, int64_t group) {
  switch (LanesOf(dim)) {
    case 2:
      return {4, 4, DecodeKernel<2, 4>, PrefillKernel<2, 4>};
    case 4:
      return {4, 4, DecodeKernel<4, 4>, PrefillKernel<4, 4>};
    case 8:
      if (group == 1) return {1, 8, DecodeKernel<8, 1>, PrefillKernel<8, 8>};
      if (group == 2) return {2, 8, DecodeKernel<8, 2>, PrefillKernel<8, 8>};
      if (group <= 4) return {4, 8, DecodeKernel<8, 4>, PrefillKernel<8, 8>};
      return {8, 8, DecodeKernel<8, 8>, PrefillKernel<8, 8>};
    case 16:
      if (group == 1) return {1, 8, DecodeKernel<16, 1>, PrefillKernel<16, 8>};
      if (group == 2) return {2, 8, DecodeKernel<16, 2>, PrefillKernel<16, 8>};
      if (group <= 4) return {4, 8, DecodeKernel<16, 4>, PrefillKernel<16, 8>};
      return {8, 8, DecodeKernel<16, 8>, PrefillKernel<16, 8>};
    default:
      return {4, 4, DecodeKernel<32, 4>, PrefillKernel<32, 4>};
  }
}

}  // namespace

PagedAttention::PagedAttention(cudaStream_t stream, bool precise)
    : stream_(stream),
      precise_(precise),
      plan_(stream),
      layer_plans_(stream),
      partial_(stream),
      maps_(stream) {
  int device = 0;
  TESSERA_CUDA_CHECK(cudaGetDevice(&device));
  TESSERA_CUDA_CHECK(
      cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device));
  void* counter = nullptr;
  TESSERA_CUDA_CHECK(cudaMalloc(&counter, sizeof *device_clamped_slopes_));
  device_clamped_slopes_ = static_cast<unsigned long long*>(counter);
  TESSERA_CUDA_CHECK(
      cudaMemsetAsync(device_clamped_slopes_, 0, sizeof *device_clamped_slopes_, stream_));
  TESSERA_CUDA_CHECK(cudaMallocHost(&counter, sizeof *clamped_slopes_));
  clamped_slopes_ = static_cast<unsigned long long*>(counter);
  *clamped_slopes_ = 0;
}

PagedAttention::~PagedAttention() {
  TESSERA_CUDA_CHECK(cudaFree(device_clamped_slopes_));
  TESSERA_CUDA_CHECK(cudaFreeHost(const_cast<unsigned long long*>(clamped_slopes_)));
}

int64_t PagedAttention::RowsOf(const int32_t* query_begin, int64_t num_sequences) {
  int32_t rows = 0;
  TESSERA_CUDA_CHECK(cudaMemcpyAsync(&rows, query_begin + num_sequences, sizeof rows,
                                     cudaMemcpyDeviceToHost, stream_));
  TESSERA_CUDA_CHECK(cudaStreamSynchronize(stream_));
  return rows;
}

PagedAttention::Kernels PagedAttention::Choose(const KvGeometry& geometry, int64_t heads,
                                               int64_t num_sequences, uint32_t formats,
                                               int64_t most_rows) {
  const int64_t dim = geometry.head_dim, group = heads / geometry.kv_heads;
  Kernels kernels = KernelsFor(dim, group);
  if (!precise_ && HasTensorAttention(dim)) {
    const TensorKernel decode =
        TensorDecodeFor(dim, group, formats, num_sequences * heads >= 8 * multiprocessors_);
    TensorKernel prefill;
    if (most_rows * group > kFewQueries) prefill = WarpgroupPrefillFor(dim);
    if (prefill.kernel == nullptr) prefill = TensorPrefillFor(dim);
    kernels = {decode.queries,  prefill.queries,      decode.kernel,    prefill.kernel,
               prefill.threads, prefill.shared_bytes, prefill.reads_map};
  }
  if (most_rows <= 1) kernels.prefill = nullptr;
  return kernels;
}

int PagedAttention::GridOf(void (*kernel)(PagedArgs), int threads, int shared_bytes) {
  int& grid = grids_[kernel];
  if (grid == 0) {
    TESSERA_CUDA_CHECK(
        cudaOccupancyMaxActiveBlocksPerMultiprocessor(&grid, kernel, threads, shared_bytes));
    grid *= multiprocessors_;
  }
  return grid;
}

PagedArgs PagedAttention::MakeArgs(const Kernels& kernels, const int32_t* query_begin,
                                   int64_t num_sequences, int64_t heads, const KvLayerView& kv) {
  const int64_t kv_heads = kv.geometry.kv_heads, dim = kv.geometry.head_dim;
  PagedArgs args{};
  args.query_begin = query_begin;
  args.sequences = static_cast<int>(num_sequences);
  args.heads = static_cast<int>(heads);
  args.group = static_cast<int>(heads / kv_heads);
  args.decode_queries = kernels.queries;
  args.prefill_queries = kernels.prefill_queries;
  args.scale = 1 / sqrtf(static_cast<float>(dim));
  args.kv = kv;
  for (int f = 0; f < kNumFormats; ++f) {
    if (!HoldsTokens(static_cast<Format>(f))) continue;
    args.formats[f] = PartsOf(static_cast<Format>(f), static_cast<int>(dim));
  }
  args.warps = GridOf(kernels.decode, kWarps * 32, 0) * kWarps;
  args.max_chunks = args.sequences + CeilDiv(args.warps * kMaxWorkPerWarp, args.head_blocks());
  return args;
}

void PagedAttention::Plan(PagedArgs args, const KvLayerView* layers, int64_t n, Workspace& memory,
                          std::vector<PagedPlan>* plans) {
  const int head_blocks = args.head_blocks();
  const int64_t ints = PagedPlan::Ints(args.sequences, head_blocks, args.max_chunks);
  auto* first = static_cast<int*>(memory.Get(n * ints * int64_t{sizeof(int)}));
  for (int64_t l = 0; l < n; ++l) {
    plans->push_back(PagedPlan::At(first + l * ints, args.sequences, head_blocks, args.max_chunks));
  }
  for (int64_t l = 0; l < n; l += kPlanLayers) {
    const int64_t count = std::min<int64_t>(kPlanLayers, n - l);
    PlanLayers list;
    for (int64_t i = 0; i < count; ++i) {
      list.runs[i] = layers[l + i].runs;
      list.run_begin[i] = layers[l + i].run_begin;
    }
    args.plan = (*plans)[plans->size() - n + l];
    PlanKernel<<<static_cast<unsigned>(count), kPlanThreads, 0, stream_>>>(args, list, ints);
    TESSERA_CUDA_CHECK_LAUNCH("PlanKernel");
  }
}

void PagedAttention::PlanAhead(const AttentionMetadata& metadata) {
  planned_layers_.clear();
  planned_ = false;
  if (metadata.num_sequences == 0 || metadata.num_layers == 0) return;
  const KvLayerView& kv = metadata.layers[0];
  const Kernels kernels = Choose(kv.geometry, metadata.heads, metadata.num_sequences,
                                 metadata.formats, metadata.most_rows);
  const PagedArgs args =
      MakeArgs(kernels, metadata.query_begin, metadata.num_sequences, metadata.heads, kv);
  std::vector<PagedPlan> plans;
  Plan(args, metadata.layers, metadata.num_layers, layer_plans_, &plans);
  for (int64_t l = 0; l < metadata.num_layers; ++l) {
    planned_layers_.push_back({metadata.layers[l].runs, metadata.layers[l].run_begin, plans[l]});
  }
  planned_kernels_ = kernels;
  const bool maps = (metadata.formats & FormatsWithHeaders()) != 0;
  planned_rows_ = maps ? metadata.rows : 0;
}

bool PagedAttention::TakePlanned(const KvLayerView& kv, PagedPlan* plan) {
  for (Planned& one : planned_layers_) {
    if (one.runs != kv.runs || one.run_begin != kv.run_begin) continue;
    *plan = one.plan;
    one.runs = nullptr;  // its counters serve only one call
    return true;
  }
  return false;
}

void PagedAttention::Run(const float* qkv, const int32_t* query_begin, const uint8_t* transformed,
                         int64_t num_sequences, int64_t heads, const KvLayerView& kv, float* out) {
  const int64_t kv_heads = kv.geometry.kv_heads, dim = kv.geometry.head_dim;
  TESSERA_CHECK(heads % kv_heads == 0);
  TESSERA_CHECK(dim > 0 && dim % 8 == 0 && dim <= 256);
  TESSERA_CHECK(transformed == nullptr || CanTransform(static_cast<int>(dim)));
  if (num_sequences == 0) return;
  PagedPlan plan;
  const bool planned = TakePlanned(kv, &plan);
  const Kernels kernels =
      planned ? planned_kernels_ : Choose(kv.geometry, heads, num_sequences, ~0u, kAnyRows);
  PagedArgs args = MakeArgs(kernels, query_begin, num_sequences, heads, kv);
  if (!planned) {
    std::vector<PagedPlan> plans;
    Plan(args, &kv, 1, plan_, &plans);
    plan = plans[0];
  }
  args.plan = plan;
  args.planned = planned && std::exchange(planned_, true);
  args.qkv = qkv;
  args.transformed = transformed;
  args.out = out;
  const int64_t rows = planned ? planned_rows_ : RowsOf(query_begin, num_sequences);
  if (rows > 0) {
    auto* maps = static_cast<AffineMap*>(maps_.Get(rows * heads * int64_t{sizeof(AffineMap)}));
    FindLogitMaps(stream_, args, rows, maps, device_clamped_slopes_);
    args.maps = maps;
    TESSERA_CUDA_CHECK(cudaMemcpyAsync(const_cast<unsigned long long*>(clamped_slopes_),
                                       device_clamped_slopes_, sizeof *device_clamped_slopes_,
                                       cudaMemcpyDeviceToHost, stream_));
  }
  const int64_t partials = int64_t{args.max_chunks} * heads;
  args.partial = static_cast<float*>(partial_.Get(partials * (dim + 2) * 4));
  args.partial_max = args.partial + partials * dim;
  args.partial_sum = args.partial_max + partials;
  LaunchDependent(kernels.decode, args.warps / kWarps, kWarps * 32, 0, stream_, args);
  if (kernels.prefill == nullptr) return;
  if (kernels.reads_map) args.raw16_map = MapRaw16(kv.arena, dim);
  const int threads = kernels.prefill_threads, shared_bytes = kernels.prefill_shared_bytes;
  LaunchDependent(kernels.prefill, GridOf(kernels.prefill, threads, shared_bytes), threads,
                  shared_bytes, stream_, args);
}

}  // namespace tessera::cuda
