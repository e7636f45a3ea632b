// The device-side plan of one paged attention: which units of work there are, and how far they are.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/common/page_parts.h"
#include "kernels/ops.h"

namespace tessera::cuda {

// Pointers into one block of device memory. "Head block": up to `queries` query heads of one KV
// head; a decode unit is (chunk of tokens, head block), a prefill unit (block of query rows and
// heads, KV head). A chunk is a share of a sequence's cost: it takes the pages, of whatever runs,
// that begin inside its share, so that chunks of any formats take about as long.
struct PagedPlan {
  int* tokens;         // [sequences] stored tokens
  int* cost;           // [sequences] of one head's pages
  int* decode_begin;   // [sequences + 1] first chunk of each sequence
  int* prefill_begin;  // [sequences + 1] first query block of each sequence
  int* finished;       // [sequences, head blocks] chunks that have ended
  int* chunk_owner;    // [chunks] sequence of each chunk
  int* next;           // [2] next decode unit, next prefill unit

  // `chunks`: at most.
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

// What a LogitMap makes of one query's logits.
struct AffineMap {
  float slope, shift;
  __device__ float Of(float score) const { return fmaf(slope, score, shift); }
};

struct PagedArgs {
  const float* qkv;
  const int32_t* query_begin;
  int sequences, heads, group, decode_queries, prefill_queries;
  int max_chunks;  // at least one for each sequence
  int warps;       // that decode at the same time
  float scale;
  KvLayerView kv;
  PageParts formats[kNumFormats];
  PagedPlan plan;
  bool planned;  // plan, runs and pages were there before the kernel in front of this one began
  // Results of chunks, [chunks, heads, head_dim] unscaled and [chunks, heads] each.
  float *partial, *partial_max, *partial_sum;
  const AffineMap* maps;       // [rows, heads] of sequences with a map; null: no format has one
  const uint8_t* transformed;  // [sequences], or null
  float* out;
  CUtensorMap raw16_map;  // MapRaw16, for kernels that read it

  __device__ bool Transformed(int s) const { return transformed != nullptr && transformed[s] != 0; }
  __host__ __device__ int head_blocks() const {
    return kv.geometry.kv_heads * ((group + decode_queries - 1) / decode_queries);
  }
};

// What a page costs one head's warp: bytes to read, and work per token, as bytes that could be read
// meanwhile.
constexpr int kTokenCost = 24;
__host__ __device__ inline int PageCost(const PageParts& parts) {
  return parts.head_bytes + parts.tokens * kTokenCost;
}

// What a unit costs beside its pages: finding them, its query, keeping and joining results.
constexpr int kWorkCost = 12 << 10;
// Chunks are not cut smaller than this, nor than a page.
constexpr int kMinChunkCost = 4 << 10;

// Layers of one plan kernel: an argument of a kernel has room for so many.
constexpr int kPlanLayers = 96;
struct PlanLayers {
  const KvRun* runs[kPlanLayers];
  const int32_t* run_begin[kPlanLayers];
};
// Fills the plans of layers, one block of kPlanThreads threads each: that of layer l is at
// args.plan's first number plus l * ints. args' other fields hold for all layers.
constexpr int kPlanThreads = 512;
__global__ void PlanKernel(PagedArgs args, PlanLayers layers, int64_t ints);

}  // namespace tessera::cuda
