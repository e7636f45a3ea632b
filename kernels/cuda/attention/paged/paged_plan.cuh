// The device-side plan of one paged attention: its work items and the counters of their progress.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/common/page_parts.h"
#include "kernels/ops.h"

namespace tessera::cuda {

// Pointers into one block of device memory. A head block is up to `decode_queries` query heads of
// one KV head. A decode work item is (chunk of tokens, head block). A prefill work item is (block
// of query rows and heads, KV head). A chunk is a share of a sequence's cost: it has the pages, of
// any runs, that begin inside its share. Chunks of any formats therefore take about as long.
struct PagedPlan {
  int* tokens;         // [sequences] stored tokens
  int* cost;           // [sequences] cost of one head's pages
  int* decode_begin;   // [sequences + 1] first chunk of each sequence
  int* prefill_begin;  // [sequences + 1] first query block of each sequence
  int* finished;       // [sequences, head blocks] finished chunks
  int* chunk_owner;    // [chunks] sequence of each chunk
  int* next;           // [2] next decode and prefill work item

  // Returns the number of ints of a plan; `chunks` is an upper bound.
  static int64_t Ints(int64_t sequences, int64_t head_blocks, int64_t chunks) {
    return 4 * sequences + 2 + sequences * head_blocks + chunks + 2;
  }
  __host__ __device__ static PagedPlan At(int* p, int64_t sequences, int64_t head_blocks,
                                          int64_t chunks) {
    PagedPlan plan;
    plan.tokens = p;
    plan.cost = plan.tokens + sequences;
    plan.decode_begin = plan.cost + sequences;
    plan.prefill_begin = plan.decode_begin + sequences + 1;
    plan.finished = plan.prefill_begin + sequences + 1;
    plan.chunk_owner = plan.finished + sequences * head_blocks;
    plan.next = plan.chunk_owner + chunks;
    return plan;
  }
};

// The affine map of one query's logits that follows from a LogitMap.
struct AffineMap {
  float slope, shift;
  __device__ float Of(float score) const { return fmaf(slope, score, shift); }
};

struct PagedArgs {
  const float* qkv;
  const int32_t* query_begin;
  int sequences, heads, group, decode_queries, prefill_queries;
  int max_chunks;  // at least one per sequence
  int warps;       // warps that decode at the same time
  float scale;
  KvLayerView kv;
  PageParts formats[kNumFormats];
  PagedPlan plan;
  bool planned;  // plan, runs and pages were complete before the previous kernel began
  // Partial results of chunks: [chunks, heads, head_dim], not yet divided by the sum, and [chunks,
  // heads] each.
  float *partial, *partial_max, *partial_sum;
  const AffineMap* maps;       // [rows, heads] for sequences with a map; null: none
  const uint8_t* transformed;  // [sequences], or null
  float* out;
  CUtensorMap raw16_map;  // MapRaw16, for kernels that read it

  __device__ bool Transformed(int s) const { return transformed != nullptr && transformed[s] != 0; }
  __host__ __device__ int head_blocks() const {
    return kv.geometry.kv_heads * ((group + decode_queries - 1) / decode_queries);
  }
};

// The cost of a page for one head's warp: the bytes to read, plus the work per token, expressed as
// bytes that could be read in that time.
constexpr int kTokenCost = 24;
__host__ __device__ inline int PageCost(const PageParts& parts) {
  return parts.head_bytes + parts.tokens * kTokenCost;
}

// The cost of a work item in addition to its pages: finding them, its query, storing and merging
// results.
constexpr int kWorkCost = 12 << 10;
// Chunks are not smaller than this, nor than a page.
constexpr int kMinChunkCost = 4 << 10;

// Layers per plan kernel, bounded by the size of a kernel's arguments.
constexpr int kPlanLayers = 96;
struct PlanLayers {
  const KvRun* runs[kPlanLayers];
  const int32_t* run_begin[kPlanLayers];
};
// Fills the plans of layers with one block of kPlanThreads threads per layer. Layer l's plan is at
// args.plan's first int plus l * ints. args' other fields hold for all layers.
constexpr int kPlanThreads = 512;
__global__ void PlanKernel(PagedArgs args, PlanLayers layers, int64_t ints);

}  // namespace tessera::cuda
