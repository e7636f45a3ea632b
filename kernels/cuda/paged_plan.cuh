// The device-side plan of one paged attention: which units of work there are, and how far they are.
#pragma once

#include <cstdint>

#include "kernels/ops.h"

namespace tessera::cuda {

// Pointers into one block of device memory. "Head block": up to `queries` query heads of one KV
// head; a decode unit is (chunk of tokens, head block), a prefill unit (block of query rows and
// heads, KV head).
struct PagedPlan {
  int* tokens;         // [sequences] stored tokens
  int* decode_begin;   // [sequences + 1] first chunk of each sequence
  int* prefill_begin;  // [sequences + 1] first query block of each sequence
  int* arrived;        // [sequences, head blocks] chunks that have ended
  int* chunk_tokens;   // [1]
  int* next;           // [2] next decode unit, next prefill unit

  static int64_t Ints(int64_t sequences, int64_t head_blocks) {
    return 3 * sequences + 2 + sequences * head_blocks + 3;
  }
  static PagedPlan At(int* p, int64_t sequences, int64_t head_blocks) {
    PagedPlan plan;
    plan.tokens = p;
    plan.decode_begin = plan.tokens + sequences;
    plan.prefill_begin = plan.decode_begin + sequences + 1;
    plan.arrived = plan.prefill_begin + sequences + 1;
    plan.chunk_tokens = plan.arrived + sequences * head_blocks;
    plan.next = plan.chunk_tokens + 1;
    return plan;
  }
};

struct PagedArgs {
  const float* qkv;
  const int32_t* query_begin;
  int sequences, heads, group, decode_queries, prefill_queries;
  int target_chunks;  // of all decode sequences together, each may add one
  float scale;
  KvLayerView kv;
  PagedPlan plan;
  // Results of chunks, [chunks, heads, head_dim] unscaled and [chunks, heads] each.
  float *partial, *partial_max, *partial_sum;
  float* out;

  __host__ __device__ int head_blocks() const {
    return kv.geometry.kv_heads * ((group + decode_queries - 1) / decode_queries);
  }
};

constexpr int kMinChunkTokens = 64;

// Fills args.plan. One block of kPlanThreads threads.
constexpr int kPlanThreads = 512;
__global__ void PlanKernel(PagedArgs args);

}  // namespace tessera::cuda
