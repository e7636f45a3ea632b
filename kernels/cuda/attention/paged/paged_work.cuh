// Units of attention's work, and the tensor-core kernels that take them.
#pragma once

#include "kernels/cuda/attention/paged/paged_plan.cuh"
#include "kernels/cuda/common/programmatic_launch.cuh"

namespace tessera::cuda {

// The last sequence whose first work is not after `work`.
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

// The items of a warp: its own number first, then whatever comes; the number is asked for a work
// ahead, so that nobody waits for it.
struct WorkQueue {
  int* next;
  int items;
  int work = -1;
  int ahead = 0;  // lane 0's

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

// One chunk of a sequence with one query row, for one head block.
struct DecodeWork {
  int s, chunk, chunk_begin, chunks;  // counted over all sequences; `chunks`: of this one
  int head_block, kv_head;
  int first_head, queries;   // query heads
  int begin_cost, end_cost;  // of the sequence's cost
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

  // Calls f(run, first token of the run counted over the sequence, first page, end page) for the
  // pages of this chunk, run after run.
  template <class F>
  __device__ void ForEachRun(const PagedArgs& args, const F& f) const {
    int first = 0, cost = 0;
    for (int r = first_run; r < end_run && cost < end_cost; ++r) {
      const KvRun run = args.kv.runs[r];
      const PageParts& parts = args.formats[static_cast<int>(run.format)];
      const int pages = (run.tokens + parts.tokens - 1) / parts.tokens, each = PageCost(parts);
      // The number of pages that begin before a cost; rounded alike on both sides of a border.
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

// Brings the first pages of a work into L2.
__device__ inline void Prefetch(const PagedArgs& args, const DecodeWork& work) {
  constexpr int kBytes = 16 << 20, kLine = 128;  // of all warps: well within L2
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

// Calls f(work) for the warp's decode items, after the kernels in front. What was planned before
// the one in front began is read while that one still runs: it writes to pages and queries, not to
// the plan, the runs and their lists of pages.
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

// A block of queries of one sequence and KV head. Query i is row i / group, head i % group of the
// group: neighbours share K and V.
struct PrefillWork {
  int s, kv_head, first, queries;  // of the sequence: query `first` is the work's first
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
  // Query i sees tokens before this.
  __device__ int Limit(int i) const { return tokens - (rows - 1 - i / group); }
};

// Decode and prefill in half precision with float sums. Rounded to half are q, the softmax's
// weights, and of low-bit pages: in decode, q times K's scales where those are per channel and
// weights times V's scales; in prefill, elements. But decode under one query a KV head is float
// throughout over 16-bit pages, and over codes it takes weights, and q where K has a scale per
// token, as whole numbers of 17 to 24 bits (code_pages.cuh). For head dims 64 and 128.
constexpr bool HasTensorAttention(int64_t dim) { return dim == 64 || dim == 128; }
struct TensorKernel {
  void (*kernel)(PagedArgs) = nullptr;
  int queries = 0;         // args.decode_queries, or prefill_queries
  int threads = 128;       // of a block
  int shared_bytes = 0;    // dynamic
  bool reads_map = false;  // args.raw16_map
};
// `formats`: bits of those that there may be. `fills_device`: there is a sequence's head for each
// of eight warps of every multiprocessor.
TensorKernel TensorDecodeFor(int64_t dim, int64_t group, uint32_t formats, bool fills_device);
TensorKernel TensorPrefillFor(int64_t dim);
// By warpgroups; without a kernel where the device, or what was built for it, has none. Slower
// where sequences have but kFewQueries of a KV head: half of a block's warpgroups then have no
// rows.
constexpr int64_t kFewQueries = 64;
TensorKernel WarpgroupPrefillFor(int64_t dim);
// The arena for the tensor memory work: a box is 64 channels of K or V of one head and all tokens
// of a RAW16 page, at (0, its first byte's work of kPageUnitBytes, 0).
CUtensorMap MapRaw16(const uint8_t* arena, int64_t dim);

}  // namespace tessera::cuda
