// Units of prefill work, and the tensor-core kernel that takes them.
#pragma once

#include "kernels/cuda/paged_plan.cuh"

namespace tessera::cuda {

// The last sequence whose first unit is not after `unit`.
__device__ inline int SequenceOf(const int* begin, int sequences, int unit) {
  int low = 0, high = sequences;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (begin[middle] <= unit) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

// A block of queries of one sequence and KV head. Query i is row i / group, head i % group of the
// group: neighbours share K and V.
struct PrefillUnit {
  int s, kv_head, first, queries;  // of the sequence: query `first` is the unit's first
  int first_row, rows, tokens, group;

  __device__ PrefillUnit(const PagedArgs& args, int unit) : group(args.group) {
    const int kv_heads = args.kv.geometry.kv_heads;
    s = SequenceOf(args.plan.prefill_begin, args.sequences, unit / kv_heads);
    const int begin = args.plan.prefill_begin[s];
    const int blocks = args.plan.prefill_begin[s + 1] - begin, local = unit - begin * kv_heads;
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

// Prefill in half precision with float sums: q (with the scale) and the softmax's weights are
// rounded to half. For head dims 64 and 128; args.prefill_queries is kPrefillRows.
constexpr int kPrefillRows = 64;
constexpr bool HasTensorPrefill(int64_t dim) { return dim == 64 || dim == 128; }
void LaunchTensorPrefill(cudaStream_t stream, const PagedArgs& args, int multiprocessors);

}  // namespace tessera::cuda
