#include <cuda_fp16.h>

#include <cmath>

#include "kernels/cuda/common/block_reduce.cuh"
#include "kernels/cuda/common/check.h"
#include "kernels/cuda/kv/statistics.h"

namespace tessera::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPageTokens = PageTokens(Format::kRaw16);
constexpr int kRowBlocks = 16;

// One block per row. Nonnegative floats have the order of their bits.
__global__ void RowPeaksKernel(const float* x, const int32_t* from_row, int cols, int top,
                               float* peaks, float* medians) {
  const float* row = x + int64_t{from_row[blockIdx.x]} * cols;
  const auto bits = [&](int c) { return __float_as_uint(fabsf(row[c])); };
  // The key is size, then the earlier column. No two keys are equal, so each round finds the next.
  unsigned long long last = ~0ull;
  for (int t = 0; t < top; ++t) {
    unsigned long long best = 0;
    for (int c = threadIdx.x; c < cols; c += kThreads) {
      const unsigned long long key =
          static_cast<unsigned long long>(bits(c)) << 32 | (0xffffffffu - static_cast<unsigned>(c));
      if (key < last && key > best) best = key;
    }
    last = BlockReduce<kThreads>(best, Larger());
    if (threadIdx.x == 0) {
      peaks[int64_t{blockIdx.x} * top + t] = __uint_as_float(static_cast<unsigned>(last >> 32));
    }
  }
  if (medians == nullptr) return;
  unsigned median = 0;
  int rank = (cols - 1) / 2;  // among values that agree with `median` in the bits found so far
  for (int bit = 30; bit >= 0; --bit) {
    int below = 0;
    for (int c = threadIdx.x; c < cols; c += kThreads) below += bits(c) >> bit == median >> bit;
    below = BlockReduce<kThreads>(below, Plus());
    if (rank >= below) {
      rank -= below;
      median |= 1u << bit;
    }
  }
  if (threadIdx.x == 0) medians[blockIdx.x] = __uint_as_float(median);
}

// kRowBlocks blocks per job and head divide its rows. A thread takes every kThreads-th token, in
// three passes: for the softmax's maximum, its sum, and the weights.
__global__ void ColumnsKernel(const float* qkv, const int32_t* query_begin, const ColumnJob* jobs,
                              int heads, KvLayerView kv, float scale, float* columns) {
  __shared__ float q[kThreads];
  const ColumnJob job = jobs[blockIdx.x];
  const int head = blockIdx.y, kv_heads = kv.geometry.kv_heads, dim = kv.geometry.head_dim;
  const int32_t first_run = kv.run_begin[job.sequence], last_run = kv.run_begin[job.sequence + 1];
  int tokens = 0;
  for (int32_t r = first_run; r < last_run; ++r) tokens += kv.runs[r].tokens;
  const int end_row = query_begin[job.sequence + 1];
  const int last_row = job.first_row + job.rows;
  for (int row = job.first_row + blockIdx.z; row < last_row; row += kRowBlocks) {
    __syncthreads();
    if (threadIdx.x < dim) {
      q[threadIdx.x] = qkv[(int64_t{row} * (heads + 2 * kv_heads) + head) * dim + threadIdx.x];
    }
    __syncthreads();
    const int visible = tokens - (end_row - 1 - row);
    // Calls f(token, score) for the thread's tokens.
    const auto scores = [&](const auto& f) {
      int before = 0;
      for (int32_t r = first_run; r < last_run; before += kv.runs[r].tokens, ++r) {
        const KvRun run = kv.runs[r];
        for (int t = threadIdx.x; t < run.tokens && before + t < visible; t += kThreads) {
          const uint8_t* page =
              kv.arena + int64_t{kv.pages[run.first_page + t / kPageTokens]} * kPageUnitBytes;
          const auto* k = reinterpret_cast<const __half*>(
              page + Raw16Offset(dim, head / (heads / kv_heads), false, t % kPageTokens));
          float dot = 0;
          for (int i = 0; i < dim; ++i) dot += q[i] * __half2float(k[i]);
          f(before + t, dot * scale);
        }
      }
    };
    float max = -INFINITY;
    scores([&](int, float s) { max = fmaxf(max, s); });
    max = BlockReduce<kThreads>(max, Larger());
    float sum = 0;
    scores([&](int, float s) { sum += expf(s - max); });
    sum = BlockReduce<kThreads>(sum, Plus());
    scores([&](int t, float s) { atomicAdd(&columns[job.columns + t], expf(s - max) / sum); });
  }
}

}  // namespace

void RowPeaks(cudaStream_t stream, const float* x, const int32_t* from_row, int64_t rows,
              int64_t cols, int64_t top, float* peaks, float* medians) {
  TESSERA_CHECK(1 <= top && top <= cols);
  if (rows == 0) return;
  RowPeaksKernel<<<static_cast<int>(rows), kThreads, 0, stream>>>(
      x, from_row, static_cast<int>(cols), static_cast<int>(top), peaks, medians);
  TESSERA_CUDA_CHECK_LAUNCH("RowPeaksKernel");
}

void AttentionColumns(cudaStream_t stream, const float* qkv, const int32_t* query_begin,
                      const ColumnJob* jobs, int64_t num_jobs, int64_t heads, const KvLayerView& kv,
                      float* columns) {
  TESSERA_CHECK(kv.geometry.head_dim <= kThreads);
  if (num_jobs == 0) return;
  const dim3 grid(static_cast<unsigned>(num_jobs), static_cast<unsigned>(heads), kRowBlocks);
  ColumnsKernel<<<grid, kThreads, 0, stream>>>(
      qkv, query_begin, jobs, static_cast<int>(heads), kv,
      1.0f / std::sqrt(static_cast<float>(kv.geometry.head_dim)), columns);
  TESSERA_CUDA_CHECK_LAUNCH("ColumnsKernel");
}

}  // namespace tessera::cuda
