#include <cuda_fp16.h>

#include <cmath>

#include "kernels/cuda/check.h"
#include "kernels/cuda/statistics.h"

namespace tessera::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPageTokens = PageTokens(Format::kRaw16);
constexpr int kTile = 8;    // tokens whose base one block computes
constexpr int kChunk = 64;  // tokens whose weights lie in shared memory at once
constexpr int kRowBlocks = 16;

// f over the values of all threads of the block, in every thread. One value a thread.
template <class T, class F>
__device__ T Reduce(T value, const F& f) {
  __shared__ T shared[kThreads];
  __syncthreads();
  shared[threadIdx.x] = value;
  __syncthreads();
  for (int n = kThreads / 2; n > 0; n /= 2) {
    if (threadIdx.x < n) shared[threadIdx.x] = f(shared[threadIdx.x], shared[threadIdx.x + n]);
    __syncthreads();
  }
  return shared[0];
}

struct Larger {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};
struct Plus {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

// One block a row. Floats that are not negative are in the order of their bits.
__global__ void RowPeaksKernel(const float* x, const int32_t* from_row, int cols, int top,
                               float* peaks, float* medians) {
  const float* row = x + int64_t{from_row[blockIdx.x]} * cols;
  const auto bits = [&](int c) { return __float_as_uint(fabsf(row[c])); };
  // Size, then the earlier column: no two are equal, so each round finds the next one.
  unsigned long long last = ~0ull;
  for (int t = 0; t < top; ++t) {
    unsigned long long best = 0;
    for (int c = threadIdx.x; c < cols; c += kThreads) {
      const unsigned long long key =
          static_cast<unsigned long long>(bits(c)) << 32 | (0xffffffffu - static_cast<unsigned>(c));
      if (key < last && key > best) best = key;
    }
    last = Reduce(best, Larger());
    if (threadIdx.x == 0) {
      peaks[int64_t{blockIdx.x} * top + t] = __uint_as_float(static_cast<unsigned>(last >> 32));
    }
  }
  if (medians == nullptr) return;
  unsigned median = 0;
  int rank = (cols - 1) / 2;  // among those that agree with `median` in the bits found
  for (int bit = 30; bit >= 0; --bit) {
    int below = 0;
    for (int c = threadIdx.x; c < cols; c += kThreads) below += bits(c) >> bit == median >> bit;
    below = Reduce(below, Plus());
    if (rank >= below) {
      rank -= below;
      median |= 1u << bit;
    }
  }
  if (threadIdx.x == 0) medians[blockIdx.x] = __uint_as_float(median);
}

// h[d] for 0 <= d < 2 * tokens.
__global__ void DirichletKernel(int tokens, int kept, float* h) {
  const int d = blockIdx.x * kThreads + threadIdx.x;
  if (d >= 2 * tokens) return;
  const double n = 2.0 * tokens, terms = 2.0 * kept - 1;
  h[d] = static_cast<float>((d == 0 ? terms : sinpi(fmod(terms * d / n, 2.0)) / sinpi(d / n)) / n);
}

// partial [layers, 2 * kv_heads, tokens, 2]: squared distance from the base, squared norm. One
// block computes kTile tokens of K or V of one head, one thread a channel.
__global__ void LowPassKernel(const uint8_t* arena, KvGeometry geometry, const PageId* pages,
                              int layer_pages, int first, int tokens, const float* h,
                              float* partial) {
  __shared__ float weights[kTile][kChunk];
  const int begin = blockIdx.x * kTile, head = blockIdx.y / 2, layer = blockIdx.z;
  const bool value = blockIdx.y % 2 != 0;
  const int dim = geometry.head_dim, channel = threadIdx.x;
  const auto element = [&](int t) {
    const int at = first + t;
    const uint8_t* page =
        arena + int64_t{pages[int64_t{layer} * layer_pages + at / kPageTokens]} * kPageUnitBytes;
    const auto* row =
        reinterpret_cast<const __half*>(page + Raw16Offset(dim, head, value, at % kPageTokens));
    return channel < dim ? __half2float(row[channel]) : 0.0f;
  };
  float base[kTile] = {};
  for (int chunk = 0; chunk < tokens; chunk += kChunk) {
    __syncthreads();
    for (int i = threadIdx.x; i < kTile * kChunk; i += kThreads) {
      const int x = begin + i / kChunk, y = chunk + i % kChunk;
      weights[i / kChunk][i % kChunk] =
          x < tokens && y < tokens ? h[x > y ? x - y : y - x] + h[x + y + 1] : 0.0f;
    }
    __syncthreads();
    for (int i = 0; i < kChunk && chunk + i < tokens; ++i) {
      const float x = element(chunk + i);
      for (int t = 0; t < kTile; ++t) base[t] += weights[t][i] * x;
    }
  }
  for (int t = 0; t < kTile && begin + t < tokens; ++t) {
    const float x = element(begin + t), d = channel < dim ? x - base[t] : 0.0f;
    const float distance = Reduce(d * d, Plus()), norm = Reduce(x * x, Plus());
    if (threadIdx.x != 0) continue;
    float* to =
        partial + ((int64_t{layer} * 2 * geometry.kv_heads + blockIdx.y) * tokens + begin + t) * 2;
    to[0] = distance;
    to[1] = norm;
  }
}

__global__ void SumHeadsKernel(const float* partial, int kv_heads, int tokens, float* out) {
  const int t = blockIdx.x * kThreads + threadIdx.x, layer = blockIdx.y;
  if (t >= tokens) return;
  float sums[4] = {};
  for (int part = 0; part < 2 * kv_heads; ++part) {
    const float* p = partial + ((int64_t{layer} * 2 * kv_heads + part) * tokens + t) * 2;
    sums[part % 2] += p[0];
    sums[2 + part % 2] += p[1];
  }
  for (int i = 0; i < 4; ++i) out[(int64_t{layer} * tokens + t) * 4 + i] = sums[i];
}

// kRowBlocks blocks a job and head share its rows; a thread takes every kThreads-th token, three
// times: for the softmax's maximum, its sum, and the weights.
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
    max = Reduce(max, Larger());
    float sum = 0;
    scores([&](int, float s) { sum += expf(s - max); });
    sum = Reduce(sum, Plus());
    scores([&](int t, float s) { atomicAdd(&columns[job.columns + t], expf(s - max) / sum); });
  }
}

int Blocks(int64_t n) { return static_cast<int>(CeilDiv<int64_t>(n, kThreads)); }

}  // namespace

void RowPeaks(cudaStream_t stream, const float* x, const int32_t* from_row, int64_t rows,
              int64_t cols, int64_t top, float* peaks, float* medians) {
  TESSERA_CHECK(1 <= top && top <= cols);
  if (rows == 0) return;
  RowPeaksKernel<<<static_cast<int>(rows), kThreads, 0, stream>>>(
      x, from_row, static_cast<int>(cols), static_cast<int>(top), peaks, medians);
  TESSERA_CUDA_CHECK_LAUNCH("RowPeaksKernel");
}

void LowPassResiduals(cudaStream_t stream, Workspace& workspace, const uint8_t* arena,
                      const KvGeometry& geometry, const PageId* pages, int64_t layer_pages,
                      int64_t first, int64_t tokens, int64_t kept, float* out) {
  TESSERA_CHECK(1 <= kept && kept <= tokens && first + tokens <= layer_pages * kPageTokens);
  TESSERA_CHECK(geometry.head_dim <= kThreads);
  const int n = static_cast<int>(tokens), parts = 2 * geometry.kv_heads;
  auto* h = static_cast<float*>(
      workspace.Get((2 * tokens + 2 * geometry.layers * int64_t{parts} * tokens) * 4));
  float* partial = h + 2 * tokens;
  DirichletKernel<<<Blocks(2 * tokens), kThreads, 0, stream>>>(n, static_cast<int>(kept), h);
  TESSERA_CUDA_CHECK_LAUNCH("DirichletKernel");
  const dim3 grid(static_cast<unsigned>(CeilDiv<int64_t>(tokens, kTile)),
                  static_cast<unsigned>(parts), static_cast<unsigned>(geometry.layers));
  LowPassKernel<<<grid, kThreads, 0, stream>>>(arena, geometry, pages,
                                               static_cast<int>(layer_pages),
                                               static_cast<int>(first), n, h, partial);
  TESSERA_CUDA_CHECK_LAUNCH("LowPassKernel");
  const dim3 all(static_cast<unsigned>(Blocks(tokens)), static_cast<unsigned>(geometry.layers));
  SumHeadsKernel<<<all, kThreads, 0, stream>>>(partial, geometry.kv_heads, n, out);
  TESSERA_CUDA_CHECK_LAUNCH("SumHeadsKernel");
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
