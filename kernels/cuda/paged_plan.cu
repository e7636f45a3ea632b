#include "kernels/cuda/overlap.cuh"
#include "kernels/cuda/paged_plan.cuh"

namespace tessera::cuda {

__global__ void __launch_bounds__(kPlanThreads) PlanKernel(PagedArgs args) {
  LetNextKernelComeUp();
  __shared__ unsigned long long decode_cost;
  __shared__ int scan[2][kPlanThreads];
  const int t = threadIdx.x;
  if (t == 0) {
    decode_cost = 0;
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
    args.plan.tokens[s] = tokens;
    args.plan.cost[s] = cost;
    if (args.query_begin[s + 1] - args.query_begin[s] == 1) {
      atomicAdd(&decode_cost, static_cast<unsigned long long>(cost));
    }
  }
  for (int i = t; i < args.sequences * args.head_blocks(); i += kPlanThreads) {
    args.plan.arrived[i] = 0;
  }
  __syncthreads();
  const auto share = static_cast<int>((decode_cost + args.target_chunks - 1) /
                                      static_cast<unsigned>(args.target_chunks));
  const int few = min(args.units_per_warp * share, kFullChunkCost);
  const int least = max(kMinChunkCost, PageCost(args.formats[static_cast<int>(Format::kRaw16)]));
  const int chunk = max(max(share, few), least);
  if (t == 0) *args.plan.chunk_cost = chunk;

  // Prefix sums of chunks and of query blocks, kPlanThreads sequences at a time.
  int base[2] = {0, 0};
  for (int first = 0; first < args.sequences; first += kPlanThreads) {
    const int s = first + t;
    int count[2] = {0, 0};
    if (s < args.sequences) {
      const int rows = args.query_begin[s + 1] - args.query_begin[s];
      if (rows == 1) count[0] = (args.plan.cost[s] + chunk - 1) / chunk;
      if (rows > 1) {
        count[1] = (rows * args.group + args.prefill_queries - 1) / args.prefill_queries;
      }
    }
    __syncthreads();
    scan[0][t] = count[0];
    scan[1][t] = count[1];
    for (int off = 1; off < kPlanThreads; off *= 2) {
      __syncthreads();
      const int a = t >= off ? scan[0][t - off] : 0, b = t >= off ? scan[1][t - off] : 0;
      __syncthreads();
      scan[0][t] += a;
      scan[1][t] += b;
    }
    __syncthreads();
    if (s < args.sequences) {
      args.plan.decode_begin[s] = base[0] + scan[0][t] - count[0];
      args.plan.prefill_begin[s] = base[1] + scan[1][t] - count[1];
    }
    base[0] += scan[0][kPlanThreads - 1];
    base[1] += scan[1][kPlanThreads - 1];
  }
  if (t == 0) {
    args.plan.decode_begin[args.sequences] = base[0];
    args.plan.prefill_begin[args.sequences] = base[1];
  }
}

}  // namespace tessera::cuda
