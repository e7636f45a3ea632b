// Low-pass residuals: the entry point, and the direct method, in which the base is a sum over all
// tokens. grid.cu has the method through a grid.
#include <algorithm>

#include "kernels/cuda/common/block_sum.cuh"
#include "kernels/cuda/common/check.h"
#include "kernels/cuda/low_pass/job.cuh"

namespace tessera::cuda {
namespace {

constexpr int kThreads = 256;

unsigned Blocks(int64_t n) { return static_cast<unsigned>(CeilDiv<int64_t>(n, kThreads)); }

constexpr int kTile = 8;    // tokens whose base one block computes
constexpr int kChunk = 64;  // tokens whose weights are in shared memory at once

// Computes h[d] for 0 <= d < 2 * tokens (cpu/statistics.h).
__global__ void DirichletKernel(int tokens, int kept, float* h) {
  const int d = blockIdx.x * kThreads + threadIdx.x;
  if (d >= 2 * tokens) return;
  const double n = 2.0 * tokens, terms = 2.0 * kept - 1;
  h[d] = static_cast<float>((d == 0 ? terms : sinpi(fmod(terms * d / n, 2.0)) / sinpi(d / n)) / n);
}

// Computes partial [layers, 2 * kv_heads, tokens, 2]: squared distance from the base, squared norm.
// A block computes kTile tokens of K or V of one head, one thread per channel.
__global__ void DirectKernel(LowPassJob job, const float* h, float* partial) {
  __shared__ float weights[kTile][kChunk];
  const int begin = blockIdx.x * kTile, head = blockIdx.y / 2, layer = blockIdx.z;
  const bool value = blockIdx.y % 2 != 0;
  const int tokens = job.tokens, channel = threadIdx.x;
  const auto element = [&](int t) {
    return channel < job.geometry.head_dim ? __half2float(job.Row(layer, head, value, t)[channel])
                                           : 0.0f;
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
    const float x = element(begin + t), d = channel < job.geometry.head_dim ? x - base[t] : 0.0f;
    const float distance = BlockSum<kThreads>(d * d), norm = BlockSum<kThreads>(x * x);
    if (threadIdx.x != 0) continue;
    float* to = partial + ((int64_t{layer} * gridDim.y + blockIdx.y) * tokens + begin + t) * 2;
    to[0] = distance;
    to[1] = norm;
  }
}

__global__ void SumPartsKernel(LowPassJob job, const float* partial, int parts, float* out) {
  const int t = blockIdx.x * kThreads + threadIdx.x, layer = blockIdx.y, tokens = job.tokens;
  if (t >= tokens) return;
  float sums[4] = {};
  for (int part = 0; part < 2 * parts; ++part) {
    const float* p = partial + ((int64_t{layer} * 2 * parts + part) * tokens + t) * 2;
    sums[part % 2] += p[0];
    sums[2 + part % 2] += p[1];
  }
  float* to = out + (layer * job.out_tokens + job.first + t) * 4;
  for (int i = 0; i < 4; ++i) to[i] = sums[i];
}

}  // namespace

void SumParts(const LowPassJob& job, const float* partial, int parts, float* out,
              cudaStream_t stream) {
  const dim3 all(Blocks(job.tokens), static_cast<unsigned>(job.geometry.layers));
  SumPartsKernel<<<all, kThreads, 0, stream>>>(job, partial, parts, out);
  TESSERA_CUDA_CHECK_LAUNCH("SumPartsKernel");
}

void LowPass::Residuals(const uint8_t* arena, const KvGeometry& geometry, const PageId* pages,
                        int64_t layer_pages, const LowPassSegment& segment, int64_t out_tokens,
                        float* out) {
  TESSERA_CHECK(1 <= segment.kept && segment.kept <= segment.tokens);
  TESSERA_CHECK(int64_t{segment.first} + segment.tokens <=
                std::min(layer_pages * PageTokens(Format::kRaw16), out_tokens));
  TESSERA_CHECK(geometry.head_dim % 8 == 0 && geometry.head_dim <= kThreads);
  const LowPassJob job{arena,         geometry,       pages,        static_cast<int>(layer_pages),
                       segment.first, segment.tokens, segment.kept, out_tokens};
  if (precise_) {
    Direct(job, out);
  } else {
    OnGrid(job, out);
  }
}

void LowPass::Direct(const LowPassJob& job, float* out) {
  const int parts = 2 * job.geometry.kv_heads;
  const int64_t tokens = job.tokens;
  auto* h = static_cast<float*>(
      workspace_.Get((2 * tokens + 2 * job.geometry.layers * int64_t{parts} * tokens) * 4));
  float* partial = h + 2 * tokens;
  DirichletKernel<<<Blocks(2 * tokens), kThreads, 0, stream_>>>(job.tokens, job.kept, h);
  TESSERA_CUDA_CHECK_LAUNCH("DirichletKernel");
  const dim3 grid(static_cast<unsigned>(CeilDiv<int64_t>(tokens, kTile)),
                  static_cast<unsigned>(parts), static_cast<unsigned>(job.geometry.layers));
  DirectKernel<<<grid, kThreads, 0, stream_>>>(job, h, partial);
  TESSERA_CUDA_CHECK_LAUNCH("DirectKernel");
  SumParts(job, partial, job.geometry.kv_heads, out, stream_);
}

}  // namespace tessera::cuda
