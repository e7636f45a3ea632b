#include "kernels/cuda/attention/paged/paged_plan.cuh"
#include "kernels/cuda/common/programmatic_launch.cuh"

namespace tessera::cuda {

// The body exceeds 60 lines: its steps share the block's shared memory and its barriers. It sums
// the sequences' costs, chooses the chunk size, and numbers chunks and query blocks by prefix sums.
__global__ void __launch_bounds__(kPlanThreads)
    PlanKernel(PagedArgs args, PlanLayers layers, int64_t ints) {
  TriggerDependentLaunch();
  args.kv.runs = layers.runs[blockIdx.x];
  args.kv.run_begin = layers.run_begin[blockIdx.x];
  args.plan = PagedPlan::At(args.plan.tokens + blockIdx.x * ints, args.sequences,
                            args.head_blocks(), args.max_chunks);
  __shared__ int most, warp_totals[2][kPlanThreads / 32];
  __shared__ unsigned long long best;
  const int t = threadIdx.x;
  if (t == 0) {
    most = 0;
    best = ~0ull;
    args.plan.next[0] = args.plan.next[1] = 0;
  }
  __syncthreads();
  for (int s = t; s < args.sequences; s += kPlanThreads) {
    int tokens = 0, cost = 0;
    for (int r = args.kv.run_begin[s]; r < args.kv.run_begin[s + 1]; ++r) {
      const KvRun run = args.kv.runs[r];
      const PageParts& parts = args.formats[static_cast<int>(run.format)];
      tokens += run.tokens;
      cost += (run.tokens + parts.tokens - 1) / parts.tokens * PageCost(parts);
    }
    if (args.query_begin[s + 1] - args.query_begin[s] != 1) cost = 0;
    args.plan.tokens[s] = tokens;
    args.plan.cost[s] = cost;
    if (cost > 0) atomicMax(&most, cost);
  }
  for (int i = t; i < args.sequences * args.head_blocks(); i += kPlanThreads) {
    args.plan.finished[i] = 0;
  }
  __syncthreads();

  // Each warp tries one chunk size. The device's warps take work items in turns, and a turn takes
  // as long as its largest item. The longest sequence in one chunk is always a valid choice.
  const auto chunks_of = [&](int s, int chunk) { return (args.plan.cost[s] + chunk - 1) / chunk; };
  const auto size = [&](int choice) {
    // 1 .. 8, 10, 12, 16, 24, 32, 48, 64, 96
    const int pieces =
        choice < 8 ? choice + 1 : static_cast<int>(0x6040302018100c0aull >> 8 * (choice - 8) & 255);
    return max(max((most + pieces - 1) / pieces, kMinChunkCost),
               PageCost(args.formats[static_cast<int>(Format::kRaw16)]));
  };
  {
    const int choice = t / 32, chunk = size(choice);
    int64_t chunks = 0;
    for (int s = t % 32; s < args.sequences; s += 32) chunks += chunks_of(s, chunk);
    for (int off = 16; off > 0; off /= 2) chunks += __shfl_xor_sync(~0u, chunks, off);
    const int64_t turns = (chunks * args.head_blocks() + args.warps - 1) / args.warps;
    if (t % 32 == 0 && (choice == 0 || chunks <= args.max_chunks)) {
      const auto time = static_cast<unsigned long long>(turns * (chunk + kWorkCost));
      atomicMin(&best, time << 8 | static_cast<unsigned>(choice));
    }
  }
  __syncthreads();
  const int chunk = size(static_cast<int>(best & 255));

  // Prefix sums of chunks and of query blocks, kPlanThreads sequences at a time.
  int base[2] = {0, 0};
  for (int first = 0; first < args.sequences; first += kPlanThreads) {
    const int s = first + t;
    int count[2] = {0, 0};
    if (s < args.sequences) {
      const int rows = args.query_begin[s + 1] - args.query_begin[s];
      if (rows == 1) count[0] = chunks_of(s, chunk);
      if (rows > 1) {
        count[1] = (rows * args.group + args.prefill_queries - 1) / args.prefill_queries;
      }
    }
    int through[2];  // counts of this thread and all threads before it
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      through[k] = count[k];
      for (int off = 1; off < 32; off *= 2) {
        const int below = __shfl_up_sync(~0u, through[k], off);
        if (t % 32 >= off) through[k] += below;
      }
      __syncthreads();  // the totals of the previous sequences have been read
      if (t % 32 == 31) warp_totals[k][t / 32] = through[k];
    }
    __syncthreads();
    int total[2] = {0, 0};
    for (int w = 0; w < kPlanThreads / 32; ++w) {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        if (w < t / 32) through[k] += warp_totals[k][w];
        total[k] += warp_totals[k][w];
      }
    }
    if (s < args.sequences) {
      const int begin = base[0] + through[0] - count[0];
      args.plan.decode_begin[s] = begin;
      for (int i = 0; i < count[0]; ++i) args.plan.chunk_owner[begin + i] = s;
      args.plan.prefill_begin[s] = base[1] + through[1] - count[1];
    }
    base[0] += total[0];
    base[1] += total[1];
  }
  if (t == 0) {
    args.plan.decode_begin[args.sequences] = base[0];
    args.plan.prefill_begin[args.sequences] = base[1];
  }
}

}  // namespace tessera::cuda
