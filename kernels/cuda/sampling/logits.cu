#include <cfloat>

#include "kernels/cuda/common/block_reduce.cuh"
#include "kernels/cuda/common/check.h"
#include "kernels/cuda/sampling/logits.h"

namespace tessera::cuda {
namespace {

constexpr int kEditThreads = 256, kThreads = 512;

// Rounds operations one by one, as on the host.
__device__ void Penalise(const LogitEdit& edit, int32_t id, int32_t times, float* row,
                         int64_t cols) {
  if (id < 0 || id >= cols) return;
  float x = row[id];
  x = x > 0 ? __fdiv_rn(x, edit.repetition) : __fmul_rn(x, edit.repetition);
  if (times > 0) {
    x = __fsub_rn(x, edit.presence);
    x = __fsub_rn(x, __fmul_rn(edit.frequency, static_cast<float>(times)));
  }
  row[id] = x;
}

__global__ void __launch_bounds__(kEditThreads)
    EditLogitsKernel(float* logits, int64_t cols, const LogitEdit* edits, const LogitBias* biases,
                     const TokenCount* counts, const int32_t* sampled) {
  const LogitEdit edit = edits[blockIdx.x];
  float* row = logits + edit.row * cols;
  for (int i = threadIdx.x; i < edit.biases; i += kEditThreads) {
    const LogitBias b = biases[edit.first_bias + i];
    if (b.id >= 0 && b.id < cols) row[b.id] += b.bias;
  }
  __syncthreads();
  const int32_t awaited = edit.awaited >= 0 ? sampled[edit.awaited] : -1;
  bool counted = false;
  for (int i = threadIdx.x; i < edit.counts; i += kEditThreads) {
    const TokenCount c = counts[edit.first_count + i];
    const bool again = c.id == awaited;
    counted |= again;
    Penalise(edit, c.id, c.times + (again ? 1 : 0), row, cols);
  }
  if (!__syncthreads_or(counted) && threadIdx.x == 0) Penalise(edit, awaited, 1, row, cols);
}

__device__ float Clean(float x) { return x == x ? fminf(x, FLT_MAX) : -INFINITY; }

// Returns a key in the order "larger logit, then lower id"; 0 if impossible.
__device__ unsigned long long KeyOf(float x, int64_t id) {
  x = Clean(x) + 0.0f;  // 0 + -0 is 0, so that zeros are equal
  if (x == -INFINITY) return 0;
  const unsigned bits = __float_as_uint(x), order = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<unsigned long long>(order) << 32 | (0xffffffffu - static_cast<unsigned>(id));
}
__device__ int32_t IdOf(unsigned long long key) {
  return static_cast<int32_t>(0xffffffffu - static_cast<unsigned>(key));
}

__global__ void __launch_bounds__(kThreads)
    LogprobsKernel(const float* logits, int64_t cols, const LogprobJob* jobs, int64_t width,
                   const int32_t* ids, LogprobAt* out) {
  const float* row = logits + blockIdx.x * cols;
  const LogprobJob job = jobs[blockIdx.x];
  out += blockIdx.x * width;
  // Keys are unique, so each round finds the next one.
  const auto next = [&](unsigned long long last) {
    unsigned long long best = 0;
    for (int64_t c = threadIdx.x; c < cols; c += kThreads) {
      const unsigned long long key = KeyOf(row[c], c);
      if (key < last && key > best) best = key;
    }
    return BlockReduce<kThreads>(best, Larger());
  };
  unsigned long long key = next(~0ull);
  double log_sum = INFINITY;  // if no token is possible
  if (key != 0) {
    const double largest = Clean(row[IdOf(key)]);
    double sum = 0;
    for (int64_t c = threadIdx.x; c < cols; c += kThreads) sum += exp(Clean(row[c]) - largest);
    log_sum = largest + log(BlockReduce<kThreads>(sum, Plus()));
  }
  const auto at = [&](int32_t id) {
    const double value = Clean(row[id]) - log_sum;
    return LogprobAt{id, static_cast<float>(fmax(value, -double{FLT_MAX}))};
  };
  if (threadIdx.x == 0) out[0] = at(ids[job.sampled]);
  for (int t = 0; t < job.top; ++t) {
    if (threadIdx.x == 0) out[1 + t] = key != 0 ? at(IdOf(key)) : LogprobAt{-1, 0};
    if (t + 1 < job.top && key != 0) key = next(key);
  }
}

}  // namespace

void EditLogits(cudaStream_t stream, float* logits, int64_t cols, const LogitEdit* edits, int64_t n,
                const LogitBias* biases, const TokenCount* counts, const int32_t* sampled) {
  if (n == 0) return;
  EditLogitsKernel<<<static_cast<unsigned>(n), kEditThreads, 0, stream>>>(logits, cols, edits,
                                                                          biases, counts, sampled);
  TESSERA_CUDA_CHECK_LAUNCH("EditLogitsKernel");
}

void Logprobs(cudaStream_t stream, const float* logits, int64_t cols, const LogprobJob* jobs,
              int64_t n, int64_t width, const int32_t* ids, LogprobAt* out) {
  if (n == 0) return;
  LogprobsKernel<<<static_cast<unsigned>(n), kThreads, 0, stream>>>(logits, cols, jobs, width, ids,
                                                                    out);
  TESSERA_CUDA_CHECK_LAUNCH("LogprobsKernel");
}

}  // namespace tessera::cuda
