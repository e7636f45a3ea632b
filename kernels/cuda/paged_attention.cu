#include <climits>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/paged_plan.cuh"
#include "kernels/cuda/paged_units.cuh"
#include "kernels/cuda/warp_attention.cuh"

namespace tessera::cuda {
namespace {

constexpr int kWarps = 4;         // of a block; each works alone
constexpr int kUnitsPerWarp = 4;  // so that warps that end early find more to do

__device__ int NextUnit(int* next) {
  int unit = 0;
  if (threadIdx.x % 32 == 0) unit = atomicAdd(next, 1);
  return __shfl_sync(~0u, unit, 0);
}

// Adds tokens [begin, end) of sequence s, KV head `head`, to the queries.
template <int kLanes, int kQueries>
__device__ void AddTokens(const PagedArgs& args, int s, int head, int begin, int end,
                          WarpAttention<kLanes, kQueries>& attention) {
  using Attention = WarpAttention<kLanes, kQueries>;
  constexpr int kPage = PageTokens(Format::kRaw16), kLoads = kPage / Attention::kTokens;
  constexpr int kMost = kQueries > 4 ? 2 : 4, kSteps = kLoads < kMost ? kLoads : kMost;
  const int dim = args.kv.geometry.head_dim, column = Attention::Column() * 8;
  const bool active = column < dim;
  const int64_t to_value = Raw16Offset(dim, 0, true, 0);
  const uint8_t* base = args.kv.arena + Raw16Offset(dim, head, false, 0) + column * 2;
  int first = 0;  // the run's first token, counted over the sequence
  for (int r = args.kv.run_begin[s]; r < args.kv.run_begin[s + 1] && first < end; ++r) {
    const KvRun run = args.kv.runs[r];
    const int low = max(begin - first, 0), high = min(end - first, run.tokens);
    const PageId* pages = args.kv.pages + run.first_page;
    for (int p = low / kPage; p * kPage < high; ++p) {
      const uint8_t* page = base + pages[p] * kPageUnitBytes;
      uint4 key[kLoads], value[kLoads];
      const auto token = [&](int j) { return p * kPage + j * Attention::kTokens; };
#pragma unroll
      for (int j = 0; j < kLoads; ++j) {
        const int at = token(j) + Attention::TokenLane();
        const bool there = active && at >= low && at < high;
        const auto* k = reinterpret_cast<const uint4*>(page + (at % kPage) * dim * 2);
        key[j] = there ? __ldg(k) : uint4{0, 0, 0, 0};
      }
#pragma unroll
      for (int j = 0; j < kLoads; ++j) {
        const int at = token(j) + Attention::TokenLane();
        const bool there = active && at >= low && at < high;
        const auto* v = reinterpret_cast<const uint4*>(page + to_value + (at % kPage) * dim * 2);
        value[j] = there ? __ldg(v) : uint4{0, 0, 0, 0};
      }
#pragma unroll
      for (int i = 0; i < kLoads; i += kSteps) {
        attention.template Add<kSteps>([&](int j, float(&out)[8]) { ToFloats(key[i + j], out); },
                                       [&](int j, float(&out)[8]) { ToFloats(value[i + j], out); },
                                       [&](int j) {
                                         const int at = token(i + j) + Attention::TokenLane();
                                         return at >= low && at < high ? first + at : INT_MAX;
                                       });
      }
    }
    first += run.tokens;
  }
}

// Keeps a chunk's result; the last chunk of the sequence to end joins them all and writes.
template <int kLanes, int kQueries>
__device__ void JoinChunks(const PagedArgs& args, int s, int chunk, int head_block, int first_head,
                           int queries, WarpAttention<kLanes, kQueries>& attention) {
  using Attention = WarpAttention<kLanes, kQueries>;
  const int dim = args.kv.geometry.head_dim, column = Attention::Column() * 8;
  const int begin = args.plan.decode_begin[s], chunks = args.plan.decode_begin[s + 1] - begin;
  float* out = args.out + (int64_t{args.query_begin[s]} * args.heads + first_head) * dim;
  if (chunks == 1) {
#pragma unroll
    for (int g = 0; g < kQueries; ++g) attention.Store(g, dim, out + int64_t{g} * dim);
    return;
  }
#pragma unroll
  for (int g = 0; g < kQueries; ++g) {
    if (g >= queries || Attention::TokenLane() != 0) continue;
    const int64_t at = int64_t{chunk} * args.heads + first_head + g;
    if (column == 0) {
      args.partial_max[at] = attention.max[g];
      args.partial_sum[at] = attention.sum[g];
    }
    if (column >= dim) continue;
    const float(&a)[8] = attention.acc[g];
    float4* to = reinterpret_cast<float4*>(args.partial + at * dim + column);
    to[0] = {a[0], a[1], a[2], a[3]};
    to[1] = {a[4], a[5], a[6], a[7]};
  }
  __threadfence();
  __syncwarp();
  int arrived = 0;
  if (threadIdx.x % 32 == 0) {
    arrived = atomicAdd(&args.plan.arrived[s * args.head_blocks() + head_block], 1);
  }
  if (__shfl_sync(~0u, arrived, 0) != chunks - 1) return;
  __threadfence();
#pragma unroll
  for (int g = 0; g < kQueries; ++g) {
    if (g >= queries) continue;
    attention.max[g] = -INFINITY;
    attention.sum[g] = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) attention.acc[g][i] = 0;
    for (int c = Attention::TokenLane(); c < chunks; c += Attention::kTokens) {
      const int64_t at = int64_t{begin + c} * args.heads + first_head + g;
      float other[8] = {};
      if (column < dim) {
        const float4* from = reinterpret_cast<const float4*>(args.partial + at * dim + column);
        const float4 a = __ldcg(from), b = __ldcg(from + 1);
        other[0] = a.x, other[1] = a.y, other[2] = a.z, other[3] = a.w;
        other[4] = b.x, other[5] = b.y, other[6] = b.z, other[7] = b.w;
      }
      attention.Join(g, __ldcg(args.partial_max + at), __ldcg(args.partial_sum + at), other);
    }
  }
  attention.JoinLanes();
#pragma unroll
  for (int g = 0; g < kQueries; ++g) attention.Store(g, dim, out + int64_t{g} * dim);
}

template <int kLanes, int kQueries>
__global__ void __launch_bounds__(kWarps * 32) DecodeKernel(PagedArgs args) {
  const int kv_heads = args.kv.geometry.kv_heads, dim = args.kv.geometry.head_dim;
  const int head_blocks = args.head_blocks(), per_head = head_blocks / kv_heads;
  const int units = args.plan.decode_begin[args.sequences] * head_blocks;
  const int chunk_tokens = *args.plan.chunk_tokens;
  while (true) {
    const int unit = NextUnit(&args.plan.next[0]);
    if (unit >= units) return;
    const int chunk = unit / head_blocks, head_block = unit % head_blocks;
    const int s = SequenceOf(args.plan.decode_begin, args.sequences, chunk);
    const int head = head_block / per_head, first_in_group = head_block % per_head * kQueries;
    const int first_head = head * args.group + first_in_group;
    const int queries = min(kQueries, args.group - first_in_group);
    const int tokens = args.plan.tokens[s];
    const int begin = (chunk - args.plan.decode_begin[s]) * chunk_tokens;
    const float* q =
        args.qkv + (int64_t{args.query_begin[s]} * (args.heads + 2 * kv_heads) + first_head) * dim;
    WarpAttention<kLanes, kQueries> attention;
#pragma unroll
    for (int g = 0; g < kQueries; ++g) {
      attention.Init(g, g < queries ? q + g * dim : nullptr, dim, args.scale, tokens);
    }
    AddTokens(args, s, head, begin, min(begin + chunk_tokens, tokens), attention);
    attention.JoinLanes();
    JoinChunks(args, s, chunk, head_block, first_head, queries, attention);
  }
}

template <int kLanes, int kQueries>
__global__ void __launch_bounds__(kWarps * 32) PrefillKernel(PagedArgs args) {
  const int kv_heads = args.kv.geometry.kv_heads, dim = args.kv.geometry.head_dim;
  const int units = args.plan.prefill_begin[args.sequences] * kv_heads;
  const int64_t row_floats = int64_t{args.heads + 2 * kv_heads} * dim;
  while (true) {
    const int next = NextUnit(&args.plan.next[1]);
    if (next >= units) return;
    const PrefillUnit unit(args, units - 1 - next);  // the last rows see most: first
    WarpAttention<kLanes, kQueries> attention;
#pragma unroll
    for (int g = 0; g < kQueries; ++g) {
      const int i = unit.first + g;
      const float* q = args.qkv + unit.Row(i) * row_floats + unit.Head(i) * dim;
      attention.Init(g, i < unit.queries ? q : nullptr, dim, args.scale, unit.Limit(i));
    }
    const int end = unit.Limit(min(unit.first + kQueries, unit.queries) - 1);
    AddTokens(args, unit.s, unit.kv_head, 0, end, attention);
    attention.JoinLanes();
#pragma unroll
    for (int g = 0; g < kQueries; ++g) {
      const int i = unit.first + g;
      attention.Store(g, dim, args.out + (unit.Row(i) * args.heads + unit.Head(i)) * dim);
    }
  }
}

struct Kernels {
  int queries, prefill_queries;
  void (*decode)(PagedArgs);
  void (*prefill)(PagedArgs);
};

// Head dims up to 64 and 128 have a decode kernel for every group size; others are rare.
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

int GridOf(void (*kernel)(PagedArgs), int multiprocessors) {
  int blocks = 0;
  TESSERA_CUDA_CHECK(
      cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, kWarps * 32, 0));
  return blocks * multiprocessors;
}

}  // namespace

PagedAttention::PagedAttention(cudaStream_t stream, bool precise)
    : stream_(stream), precise_(precise) {
  int device = 0;
  TESSERA_CUDA_CHECK(cudaGetDevice(&device));
  TESSERA_CUDA_CHECK(
      cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device));
}

void PagedAttention::Run(const float* qkv, const int32_t* query_begin, int64_t num_sequences,
                         int64_t heads, const KvLayerView& kv, float* out) {
  const int64_t kv_heads = kv.geometry.kv_heads, dim = kv.geometry.head_dim;
  TESSERA_CHECK(heads % kv_heads == 0);
  TESSERA_CHECK(dim > 0 && dim % 8 == 0 && dim <= 256);
  if (num_sequences == 0) return;
  const Kernels kernels = KernelsFor(dim, heads / kv_heads);
  const int decode_grid = GridOf(kernels.decode, multiprocessors_);
  const bool tensor_prefill = !precise_ && HasTensorPrefill(dim);

  PagedArgs args;
  args.qkv = qkv;
  args.query_begin = query_begin;
  args.sequences = static_cast<int>(num_sequences);
  args.heads = static_cast<int>(heads);
  args.group = static_cast<int>(heads / kv_heads);
  args.decode_queries = kernels.queries;
  args.prefill_queries = tensor_prefill ? kPrefillRows : kernels.prefill_queries;
  args.scale = 1 / sqrtf(static_cast<float>(dim));
  args.kv = kv;
  args.out = out;
  const int head_blocks = args.head_blocks();
  args.target_chunks = CeilDiv(decode_grid * kWarps * kUnitsPerWarp, head_blocks);
  args.plan = PagedPlan::At(
      static_cast<int*>(plan_.Get(PagedPlan::Ints(num_sequences, head_blocks) * sizeof(int))),
      num_sequences, head_blocks);
  const int64_t partials = (args.target_chunks + num_sequences) * heads;
  args.partial = static_cast<float*>(partial_.Get(partials * (dim + 2) * 4));
  args.partial_max = args.partial + partials * dim;
  args.partial_sum = args.partial_max + partials;

  PlanKernel<<<1, kPlanThreads, 0, stream_>>>(args);
  TESSERA_CUDA_CHECK_LAUNCH("PlanKernel");
  kernels.decode<<<decode_grid, kWarps * 32, 0, stream_>>>(args);
  TESSERA_CUDA_CHECK_LAUNCH("DecodeKernel");
  if (tensor_prefill) {
    LaunchTensorPrefill(stream_, args, multiprocessors_);
    return;
  }
  kernels.prefill<<<GridOf(kernels.prefill, multiprocessors_), kWarps * 32, 0, stream_>>>(args);
  TESSERA_CUDA_CHECK_LAUNCH("PrefillKernel");
}

}  // namespace tessera::cuda
