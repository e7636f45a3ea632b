#include <cfloat>

#include "kernels/cuda/common/check.h"
#include "kernels/cuda/sampling/sampling.h"

namespace tessera::cuda {
namespace {

constexpr int kThreads = 512, kWarps = kThreads / 32;
constexpr int kParts = 16, kPartBits = 4;     // parts of an interval of keys in one pass
constexpr uint64_t kOne = uint64_t{1} << 40;  // the most probable token's weight
constexpr uint32_t kImpossible = 0x007fffff;  // the key of -infinity; a banned token's is 0

// One row of logits as integer keys that have the order of the logits.
struct Row {
  const float* logits;
  const uint8_t* banned;
  int64_t cols;
  float largest;  // the largest logit; set after the first pass
  double scale;   // 1 / temperature

  __device__ uint32_t Key(int64_t c) const {
    if (banned[c] != 0) return 0;
    float x = logits[c];
    x = x == x ? fminf(x, FLT_MAX) + 0.0f : -INFINITY;  // 0 + -0 is 0, so that zeros are equal
    return KeyOf(x);
  }
  __device__ static uint32_t KeyOf(float x) {
    const uint32_t bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  }
  __device__ static float LogitOf(uint32_t key) {
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
  }
  __device__ uint64_t Weight(uint32_t key) const {
    if (key <= kImpossible) return 0;
    const double weight = exp((static_cast<double>(LogitOf(key)) - largest) * scale);
    return static_cast<uint64_t>(__double2ll_rn(weight * static_cast<double>(kOne)));
  }
};

struct Plus {
  __device__ uint64_t operator()(uint64_t a, uint64_t b) const { return a + b; }
};
struct Larger {
  __device__ uint64_t operator()(uint64_t a, uint64_t b) const { return a > b ? a : b; }
};

// Reduces each values[i] over all threads and returns it in every thread.
template <int kValues, class F>
__device__ void BlockReduce(uint64_t (&values)[kValues], const F& f) {
  __shared__ uint64_t warps[kWarps][kValues];
#pragma unroll
  for (int i = 0; i < kValues; ++i) {
    for (int off = 16; off > 0; off /= 2) {
      values[i] = f(values[i], __shfl_xor_sync(~0u, values[i], off));
    }
  }
  __syncthreads();  // readers of the previous call are done
  if (threadIdx.x % 32 == 0) {
    for (int i = 0; i < kValues; ++i) warps[threadIdx.x / 32][i] = values[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kValues; ++i) {
    values[i] = warps[0][i];
    for (int w = 1; w < kWarps; ++w) values[i] = f(values[i], warps[w][i]);
  }
}

// A threshold: all tokens with keys larger than `key` are kept, and the first few with this key.
struct Border {
  uint32_t key;
  uint64_t above;  // sum over larger keys
  bool found;
};

// Returns the largest key in [low, high) such that measure(key), summed over all tokens with this
// or a larger key, reaches `target`. `above` is the sum from `high` on and less than `target`.
template <class Measure>
__device__ Border FindBorder(const Row& row, uint64_t low, uint64_t high, uint64_t above,
                             uint64_t target, const Measure& measure) {
  while (low < high) {
    const int bits = 64 - __clzll(static_cast<long long>(high - low - 1));  // high - low <= 2^bits
    const int shift = bits > kPartBits ? bits - kPartBits : 0;
    uint64_t parts[kParts] = {};
    for (int64_t c = threadIdx.x; c < row.cols; c += kThreads) {
      const uint32_t key = row.Key(c);
      if (key < low || key >= high) continue;
      const auto part = static_cast<int>((key - low) >> shift);
      const uint64_t size = measure(key);
#pragma unroll
      for (int i = 0; i < kParts; ++i) parts[i] += i == part ? size : 0;
    }
    BlockReduce(parts, Plus());
    int part = -1;
#pragma unroll
    for (int i = kParts - 1; i >= 0; --i) {
      if (part >= 0) continue;
      if (above + parts[i] >= target) {
        part = i;
      } else {
        above += parts[i];
      }
    }
    if (part < 0) return {0, above, false};
    low += static_cast<uint64_t>(part) << shift;
    if (shift == 0) return {static_cast<uint32_t>(low), above, true};
    high = min(high, low + (uint64_t{1} << shift));
  }
  return {0, above, false};
}

__device__ uint64_t MassAbove(const Row& row, uint32_t border) {
  uint64_t sum[1] = {0};
  for (int64_t c = threadIdx.x; c < row.cols; c += kThreads) {
    const uint32_t key = row.Key(c);
    if (key > border) sum[0] += row.Weight(key);
  }
  BlockReduce(sum, Plus());
  return sum[0];
}

// Samples the token whose share of the kept weights contains the fraction `uniform`. Kept are
// tokens with keys above `border` and the first `equal` with that key, each if its weight is at
// least `least`. The body exceeds 60 lines because its passes share the per-warp sums.
__device__ void Sample(const Row& row, uint32_t border, uint64_t equal, uint64_t least,
                       double uniform, int32_t* id) {
  __shared__ uint64_t masses[kWarps], ties[kWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t each = (row.cols + kThreads - 1) / kThreads * 32;
  const int64_t begin = warp * each, end = min(row.cols, begin + each);
  uint64_t tie_weight = row.Weight(border);
  if (tie_weight < least) tie_weight = 0;
  const auto weight_of = [&](uint32_t key) {
    const uint64_t weight = key > border ? row.Weight(key) : 0;
    return weight < least ? 0 : weight;
  };
  uint64_t mass = 0, tied = 0;
  for (int64_t c = begin + lane; c < end; c += 32) {
    const uint32_t key = row.Key(c);
    mass += weight_of(key);
    tied += key == border ? 1 : 0;
  }
  for (int off = 16; off > 0; off /= 2) {
    mass += __shfl_xor_sync(~0u, mass, off);
    tied += __shfl_xor_sync(~0u, tied, off);
  }
  if (lane == 0) masses[warp] = mass, ties[warp] = tied;
  __syncthreads();
  uint64_t total = 0, before = 0, ties_before = 0;
  for (int pass = 0; pass < 2; ++pass) {  // the second pass stops at this warp
    uint64_t sum = 0, seen = 0;
    for (int w = 0; w < (pass == 0 ? kWarps : warp); ++w) {
      const uint64_t first = min(seen, equal);
      seen += ties[w];
      sum += masses[w] + (min(seen, equal) - first) * tie_weight;
    }
    if (pass == 0) {
      total = sum;
    } else {
      before = sum;
      ties_before = seen;
    }
  }
  const uint64_t target =
      min(static_cast<uint64_t>(uniform * static_cast<double>(total)), total - 1);
  if (before > target) return;  // an earlier warp has the token
  for (int64_t base = begin; base < end; base += 32) {
    const uint32_t key = base + lane < end ? row.Key(base + lane) : 0;
    const bool tie = key == border && base + lane < end;
    const uint32_t tie_lanes = __ballot_sync(~0u, tie);
    const uint64_t rank = ties_before + __popc(tie_lanes & ((1u << lane) - 1));
    const uint64_t mine = tie ? (rank < equal ? tie_weight : 0) : weight_of(key);
    uint64_t sum = mine;
    for (int off = 1; off < 32; off *= 2) {
      const uint64_t other = __shfl_up_sync(~0u, sum, off);
      if (lane >= off) sum += other;
    }
    const uint32_t reached = __ballot_sync(~0u, before + sum > target);
    if (reached != 0) {
      if (lane == __ffs(static_cast<int>(reached)) - 1) *id = static_cast<int32_t>(base + lane);
      return;
    }
    before += __shfl_sync(~0u, sum, 31);
    ties_before += __popc(tie_lanes);
  }
}

__global__ void __launch_bounds__(kThreads)
    SampleTokensKernel(const float* logits, int64_t cols, const uint8_t* banned,
                       const SampleRule* rules, int32_t* ids) {
  Row row{logits + blockIdx.x * cols, banned, cols, 0, 0};
  uint64_t best[1] = {0};  // the key, then the earlier id
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) {
    best[0] =
        Larger()(best[0], uint64_t{row.Key(c)} << 32 | (0xffffffffu - static_cast<uint32_t>(c)));
  }
  BlockReduce(best, Larger());
  const auto top = static_cast<uint32_t>(best[0] >> 32);
  if (rules == nullptr || rules[blockIdx.x].temperature == 0 || top <= kImpossible) {
    if (threadIdx.x == 0) {
      ids[blockIdx.x] = static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(best[0]));
    }
    return;
  }
  const SampleRule rule = rules[blockIdx.x];
  row.largest = Row::LogitOf(top);
  row.scale = 1.0 / rule.temperature;
  uint32_t border = kImpossible;
  uint64_t equal = 0;
  if (rule.top_k > 0 && rule.top_k < cols) {
    const auto count = static_cast<uint64_t>(rule.top_k);
    const Border found = FindBorder(row, kImpossible + 1, uint64_t{top} + 1, 0, count,
                                    [](uint32_t) { return uint64_t{1}; });
    if (found.found) border = found.key, equal = count - found.above;
  }
  if (rule.top_p < 1) {
    const auto weight = [&row](uint32_t key) { return row.Weight(key); };
    const uint64_t above = MassAbove(row, border), all = above + equal * row.Weight(border);
    const double share = ceil(static_cast<double>(rule.top_p) * static_cast<double>(all));
    const uint64_t target = max(uint64_t{1}, min(static_cast<uint64_t>(share), all));
    uint64_t larger = above;
    if (target <= above) {
      const Border found =
          FindBorder(row, uint64_t{border} + 1, uint64_t{top} + 1, 0, target, weight);
      border = found.key, larger = found.above;
    }
    const uint64_t each = row.Weight(border);
    equal = (target - larger + each - 1) / each;
  }
  const double least = ceil(static_cast<double>(rule.min_p) * static_cast<double>(kOne));
  Sample(row, border, equal, static_cast<uint64_t>(least), rule.uniform, ids + blockIdx.x);
}

}  // namespace

void SampleTokens(cudaStream_t stream, const float* logits, int64_t rows, int64_t cols,
                  const uint8_t* banned, const SampleRule* rules, int32_t* ids) {
  TESSERA_CHECK(cols > 0 && cols <= INT32_MAX);
  if (rows == 0) return;
  SampleTokensKernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(logits, cols, banned,
                                                                           rules, ids);
  TESSERA_CUDA_CHECK_LAUNCH("SampleTokensKernel");
}

}  // namespace tessera::cuda
