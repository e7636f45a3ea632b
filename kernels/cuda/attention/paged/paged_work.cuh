// Work items of attention, how warps take them, and the tensor-core kernels that run them.
#pragma once

#include "kernels/cuda/attention/paged/paged_plan.cuh"
#include "kernels/cuda/common/programmatic_launch.cuh"

namespace tessera::cuda {

// Returns the last sequence whose first work item is not after `work`.
__device__ inline int SequenceOf(const int* begin, int sequences, int work) {
  int low = 0, high = sequences;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (begin[middle] <= work) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

__device__ inline int NextWork(int* next) {
  int work = 0;
  if (threadIdx.x % 32 == 0) work = atomicAdd(next, 1);
  return __shfl_sync(~0u, work, 0);
}

// The work items of a warp: first the one with its own number, then the next free ones. The next
// number is requested one item ahead, so that no lane waits for it.
struct WorkQueue {
  int* next;
  int items;
  int work = -1;
  int ahead = 0;  // the next item; valid in lane 0

  __device__ explicit WorkQueue(const PagedArgs& args)
      : next(&args.plan.next[0]),
        items(args.plan.decode_begin[args.sequences] * args.head_blocks()) {}
  __device__ bool Next() {
    const int warps = blockDim.x / 32, all = gridDim.x * warps;
    work = work < 0 ? blockIdx.x * warps + threadIdx.x / 32 : all + __shfl_sync(~0u, ahead, 0);
    if (work >= items) return false;
    if (threadIdx.x % 32 == 0) ahead = atomicAdd(next, 1);
    return true;
  }
};

// A decode work item: one chunk of a sequence with one query row, for one head block.
struct DecodeWork {
  int s, chunk, chunk_begin, chunks;  // chunk numbers are over all sequences; `chunks`: of this one
  int head_block, kv_head;
  int first_head, queries;   // query heads
  int begin_cost, end_cost;  // range of the sequence's cost
  int first_run, end_run;

  DecodeWork() = default;
  __device__ DecodeWork(const PagedArgs& args, int work) {
    const int head_blocks = args.head_blocks(), per_head = head_blocks / args.kv.geometry.kv_heads;
    chunk = work / head_blocks;
    head_block = work % head_blocks;
    s = args.plan.chunk_owner[chunk];
    chunk_begin = args.plan.decode_begin[s];
    chunks = args.plan.decode_begin[s + 1] - chunk_begin;
    first_run = args.kv.run_begin[s];
    end_run = args.kv.run_begin[s + 1];
    kv_head = head_block / per_head;
    const int first_in_group = head_block % per_head * args.decode_queries;
    first_head = kv_head * args.group + first_in_group;
    queries = min(args.decode_queries, args.group - first_in_group);
    const int share = chunks == 1 ? args.plan.cost[s] : (args.plan.cost[s] + chunks - 1) / chunks;
    begin_cost = (chunk - chunk_begin) * share;
    end_cost = begin_cost + share;
  }

  // Calls f(run, the run's first token counted over the sequence, first page, end page) for the
  // pages of this chunk, run after run.
  template <class F>
  __device__ void ForEachRun(const PagedArgs& args, const F& f) const {
    int first = 0, cost = 0;
    for (int r = first_run; r < end_run && cost < end_cost; ++r) {
      const KvRun run = args.kv.runs[r];
      const PageParts& parts = args.formats[static_cast<int>(run.format)];
      const int pages = (run.tokens + parts.tokens - 1) / parts.tokens, each = PageCost(parts);
      // Returns the number of pages that begin before a cost. Both sides of a border round alike.
      const auto before = [&, share = 1 / static_cast<float>(each)](int end) {
        return __float2int_ru(static_cast<float>(end - cost) * share);
      };
      const int low = max(before(begin_cost), 0), high = min(pages, before(end_cost));
      if (low < high) f(run, first, low, high);
      first += run.tokens;
      cost += pages * each;
    }
  }
};

// Prefetches the first pages of a work item into L2.
__device__ inline void Prefetch(const PagedArgs& args, const DecodeWork& work) {
  constexpr int kBytes = 16 << 20, kLine = 128;  // kBytes over all warps: well within L2
  int left = kBytes / args.warps;
  work.ForEachRun(args, [&](const KvRun& run, int, int low, int high) {
    const int head_bytes = args.formats[static_cast<int>(run.format)].head_bytes;
    for (int p = low; p < high && left > 0; ++p, left -= head_bytes) {
      const uint8_t* head = args.kv.arena + args.kv.pages[run.first_page + p] * kPageUnitBytes +
                            work.kv_head * head_bytes;
      for (int b = threadIdx.x % 32 * kLine; b < head_bytes; b += 32 * kLine) {
        asm volatile("prefetch.global.L2 [%0];" ::"l"(head + b));
      }
    }
  });
}

// Calls f(work) for the warp's decode work items, after the earlier kernels. If the plan is older
// than the previous kernel, it is read while that kernel still runs: that kernel writes pages and
// queries, but not the plan, the runs or their page lists.
template <class F>
__device__ void ForEachDecodeWork(const PagedArgs& args, const F& f) {
  if (!args.planned) SynchronizeGridDependency();
  WorkQueue queue(args);
  DecodeWork work;
  bool there = queue.Next();
  if (there) work = DecodeWork(args, queue.work);
  if (args.planned) {
    if (there) Prefetch(args, work);
    SynchronizeGridDependency();
  }
  TriggerDependentLaunch();
  while (there) {
    f(work);
    there = queue.Next();
    if (there) work = DecodeWork(args, queue.work);
  }
}

// A prefill work item: a block of queries of one sequence and KV head. Query i is row i / group and
// head i % group of the group, so neighbours share K and V.
struct PrefillWork {
  int s, kv_head, first, queries;  // `queries`: of the sequence; `first`: this item's first
  int first_row, rows, tokens, group;

  PrefillWork() = default;
  __device__ PrefillWork(const PagedArgs& args, int work) : group(args.group) {
    const int kv_heads = args.kv.geometry.kv_heads;
    s = SequenceOf(args.plan.prefill_begin, args.sequences, work / kv_heads);
    const int begin = args.plan.prefill_begin[s];
    const int blocks = args.plan.prefill_begin[s + 1] - begin, local = work - begin * kv_heads;
    kv_head = local / blocks;
    first = local % blocks * args.prefill_queries;
    first_row = args.query_begin[s];
    rows = args.query_begin[s + 1] - first_row;
    queries = rows * group;
    tokens = args.plan.tokens[s];
  }
  __device__ int64_t Row(int i) const { return first_row + i / group; }
  __device__ int Head(int i) const { return kv_head * group + i % group; }
  // Returns the end of the tokens that query i sees.
  __device__ int Limit(int i) const { return tokens - (rows - 1 - i / group); }
};

// Decode and prefill in half precision with float sums, for head dims 64 and 128. q and the
// softmax's weights are rounded to half. From low-bit pages, decode rounds q times K's scales if
// those are per channel, and weights times V's scales; prefill rounds elements.
// Decode with one query per KV head differs. It is float throughout over 16-bit pages. Over codes
// it takes weights, and q if K has a scale per token, as integers of 17 to 24 bits
// (code_pages.cuh).
constexpr bool HasTensorAttention(int64_t dim) { return dim == 64 || dim == 128; }
struct TensorKernel {
  void (*kernel)(PagedArgs) = nullptr;
  int queries = 0;         // args.decode_queries, or prefill_queries
  int threads = 128;       // per block
  int shared_bytes = 0;    // dynamic shared memory
  bool reads_map = false;  // whether it reads args.raw16_map
};
// `formats` has the bits of formats that may occur. `fills_device`: the batch has a sequence's head
// for each of eight warps of every multiprocessor.
TensorKernel TensorDecodeFor(int64_t dim, int64_t group, uint32_t formats, bool fills_device);
TensorKernel TensorPrefillFor(int64_t dim);
// Returns the wgmma kernel, or none if the device or this build has no wgmma. It is slower if
// sequences have at most kFewQueries queries per KV head: half of a block's warpgroups then have no
// rows.
constexpr int64_t kFewQueries = 64;
TensorKernel WarpgroupPrefillFor(int64_t dim);
// Returns the TMA descriptor of the arena. A box is 64 channels of K or V of one head and all
// tokens of a RAW16 page, at (0, its first byte / kPageUnitBytes, 0).
CUtensorMap MapRaw16(const uint8_t* arena, int64_t dim);

}  // namespace tessera::cuda
