#include <cuda_fp16.h>

#include <algorithm>

#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/check.h"
#include "kernels/cuda/halves.cuh"
#include "kernels/cuda/low_pass.h"

namespace tessera::cuda {

struct LowPassJob {
  const uint8_t* arena;
  KvGeometry geometry;
  const PageId* pages;
  int layer_pages, first, tokens, kept;

  // Token t's 16-bit numbers of one head's K or V.
  __device__ const __half* Row(int layer, int head, bool value, int t) const {
    constexpr int kPage = PageTokens(Format::kRaw16);
    const int at = first + t;
    const PageId page = pages[int64_t{layer} * layer_pages + at / kPage];
    return reinterpret_cast<const __half*>(arena + page * kPageUnitBytes +
                                           Raw16Offset(geometry.head_dim, head, value, at % kPage));
  }
};

namespace {

constexpr int kThreads = 256;

unsigned Blocks(int64_t n) { return static_cast<unsigned>(CeilDiv<int64_t>(n, kThreads)); }

// --- Direct: the base as a sum over all tokens.

constexpr int kTile = 8;    // tokens whose base one block computes
constexpr int kChunk = 64;  // tokens whose weights lie in shared memory at once

// h[d] for 0 <= d < 2 * tokens.
__global__ void DirichletKernel(int tokens, int kept, float* h) {
  const int d = blockIdx.x * kThreads + threadIdx.x;
  if (d >= 2 * tokens) return;
  const double n = 2.0 * tokens, terms = 2.0 * kept - 1;
  h[d] = static_cast<float>((d == 0 ? terms : sinpi(fmod(terms * d / n, 2.0)) / sinpi(d / n)) / n);
}

// partial [layers, 2 * kv_heads, tokens, 2]: squared distance from the base, squared norm. One
// block computes kTile tokens of K or V of one head, one thread a channel.
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

// --- By products. Token t < half is paired with its mirror image, tokens - 1 - t; the token in the
// middle of an odd number with itself. With e and o half their sum and difference, coefficient k is
// (4 / tokens) sum of cos(pi (2 t + 1) k / (2 tokens)) e (k even) or o (k odd) over pairs, that of
// k = 0 and the middle token's share half as large; and the residuals of a pair are the sum and the
// difference of what e and o differ from their bases by.

// Even (parity 0) or odd coefficients: forward [rows, half] and inverse [half, rows], zero beyond
// `kept` and the last pair.
__global__ void CosinesKernel(int tokens, int kept, int parity, int rows, int half, __half* forward,
                              __half* inverse) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= int64_t{rows} * half) return;
  const auto cosine = [&](int row, int t) {
    const int k = 2 * row + parity;
    if (k >= kept || 2 * t >= tokens) return 0.0f;
    const int64_t turn = (2 * int64_t{t} + 1) * k % (4 * int64_t{tokens});
    return cospif(static_cast<float>(turn) / static_cast<float>(2 * tokens));
  };
  const int row = static_cast<int>(i / half), t = static_cast<int>(i % half);
  const float once = (row == 0 && parity == 0 ? 0.5f : 1) * (2 * t + 1 == tokens ? 0.5f : 1);
  forward[i] = __float2half_rn(once * cosine(row, t));
  inverse[i] = __float2half_rn(cosine(static_cast<int>(i % rows), static_cast<int>(i / rows)));
}

// One block a (pair, layer, K or V): e and o to folded [2, half, layers * 2 * channels], the norms
// of both tokens to out.
__global__ void FoldKernel(LowPassJob job, int layer0, int half, __half* folded, float* out) {
  const int t = blockIdx.x, mirror = job.tokens - 1 - t, layer = layer0 + blockIdx.y;
  const bool there = 2 * t < job.tokens, value = blockIdx.z != 0;
  const int dim = job.geometry.head_dim, channels = job.geometry.kv_heads * dim;
  const int64_t columns = int64_t{gridDim.y} * 2 * channels;
  __half* to = folded + t * columns + (int64_t{blockIdx.y} * 2 + blockIdx.z) * channels;
  float norm = 0, mirror_norm = 0;
  for (int c = threadIdx.x * 8; c < channels; c += blockDim.x * 8) {
    float x[8] = {}, y[8] = {};
    if (there) {
      ToFloats(*reinterpret_cast<const uint4*>(job.Row(layer, c / dim, value, t) + c % dim), x);
      ToFloats(*reinterpret_cast<const uint4*>(job.Row(layer, c / dim, value, mirror) + c % dim),
               y);
    }
    __half e[8], o[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      norm += x[i] * x[i];
      mirror_norm += y[i] * y[i];
      e[i] = __float2half_rn(0.5f * x[i] + 0.5f * y[i]);
      o[i] = __float2half_rn(0.5f * x[i] - 0.5f * y[i]);
    }
    *reinterpret_cast<uint4*>(to + c) = *reinterpret_cast<const uint4*>(e);
    *reinterpret_cast<uint4*>(to + half * columns + c) = *reinterpret_cast<const uint4*>(o);
  }
  norm = BlockSum<kThreads>(norm);
  mirror_norm = BlockSum<kThreads>(mirror_norm);
  if (threadIdx.x != 0 || !there) return;
  float* sums = out + int64_t{layer} * job.tokens * 4 + 2 + blockIdx.z;
  sums[t * 4] = norm;
  sums[mirror * 4] = mirror_norm;
}

// The same blocks, after the products have taken the bases away from e and o.
__global__ void DistanceKernel(LowPassJob job, int layer0, int half, const __half* folded,
                               float* out) {
  const int t = blockIdx.x, mirror = job.tokens - 1 - t, layer = layer0 + blockIdx.y;
  const int channels = job.geometry.kv_heads * job.geometry.head_dim;
  const int64_t columns = int64_t{gridDim.y} * 2 * channels;
  const __half* from = folded + t * columns + (int64_t{blockIdx.y} * 2 + blockIdx.z) * channels;
  float sum = 0, mirror_sum = 0;
  for (int c = threadIdx.x * 8; c < channels; c += blockDim.x * 8) {
    float e[8], o[8];
    ToFloats(*reinterpret_cast<const uint4*>(from + c), e);
    ToFloats(*reinterpret_cast<const uint4*>(from + half * columns + c), o);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      sum += (e[i] + o[i]) * (e[i] + o[i]);
      mirror_sum += (e[i] - o[i]) * (e[i] - o[i]);
    }
  }
  sum = BlockSum<kThreads>(sum);
  mirror_sum = BlockSum<kThreads>(mirror_sum);
  if (threadIdx.x != 0) return;
  float* sums = out + int64_t{layer} * job.tokens * 4 + blockIdx.z;
  if (t != mirror) sums[mirror * 4] = mirror_sum;
  sums[t * 4] = sum;
}

constexpr int64_t kFoldedBytes = int64_t{64} << 20;  // of a group of layers

}  // namespace

void LowPass::Residuals(const uint8_t* arena, const KvGeometry& geometry, const PageId* pages,
                        int64_t layer_pages, int64_t first, int64_t tokens, int64_t kept,
                        float* out) {
  TESSERA_CHECK(1 <= kept && kept <= tokens);
  TESSERA_CHECK(first + tokens <= layer_pages * PageTokens(Format::kRaw16));
  TESSERA_CHECK(geometry.head_dim % 8 == 0 && geometry.head_dim <= kThreads);
  const LowPassJob job{arena,
                       geometry,
                       pages,
                       static_cast<int>(layer_pages),
                       static_cast<int>(first),
                       static_cast<int>(tokens),
                       static_cast<int>(kept)};
  if (precise_) {
    Direct(job, out);
  } else {
    ByProducts(job, out);
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
  const dim3 all(Blocks(tokens), static_cast<unsigned>(job.geometry.layers));
  SumHeadsKernel<<<all, kThreads, 0, stream_>>>(partial, job.geometry.kv_heads, job.tokens, out);
  TESSERA_CUDA_CHECK_LAUNCH("SumHeadsKernel");
}

void LowPass::ByProducts(const LowPassJob& job, float* out) {
  // Rows of 16 bytes and more, for the products.
  const int64_t half = CeilDiv<int64_t>(job.tokens, 16) * 8;
  const int64_t rows = CeilDiv<int64_t>(job.kept, 16) * 8;
  const int64_t layers = job.geometry.layers;
  const int64_t layer_columns = 2 * int64_t{job.geometry.kv_heads} * job.geometry.head_dim;
  const int64_t fitting =
      std::clamp<int64_t>(kFoldedBytes / (2 * half * layer_columns * 2), 1, layers);
  const int64_t most = CeilDiv(layers, CeilDiv(layers, fitting));  // of a group
  const int64_t columns = most * layer_columns;
  auto* cosines = static_cast<__half*>(
      workspace_.Get((4 * rows * half + 2 * half * columns + rows * columns) * 2));
  __half* folded = cosines + 4 * rows * half;
  __half* coefficients = folded + 2 * half * columns;
  const auto forward = [&](int parity) { return cosines + 2 * parity * rows * half; };
  const auto inverse = [&](int parity) { return forward(parity) + rows * half; };
  for (int parity : {0, 1}) {
    CosinesKernel<<<Blocks(rows * half), kThreads, 0, stream_>>>(
        job.tokens, job.kept, parity, static_cast<int>(rows), static_cast<int>(half),
        forward(parity), inverse(parity));
    TESSERA_CUDA_CHECK_LAUNCH("CosinesKernel");
  }
  for (int64_t layer = 0; layer < layers; layer += most) {
    const int64_t count = std::min(most, layers - layer), n = count * layer_columns;
    const auto first = static_cast<int>(layer), rows_of_half = static_cast<int>(half);
    const dim3 all(static_cast<unsigned>(half), static_cast<unsigned>(count), 2);
    FoldKernel<<<all, kThreads, 0, stream_>>>(job, first, rows_of_half, folded, out);
    TESSERA_CUDA_CHECK_LAUNCH("FoldKernel");
    for (int parity : {0, 1}) {
      __half* part = folded + parity * half * n;
      GemmShape shape{rows, n, half, DType::kF16, DType::kF16};
      shape.plain_b = true;
      gemm_->Run(shape, forward(parity), part, coefficients, nullptr,
                 4 / static_cast<float>(job.tokens));
      shape = {half, n, rows, DType::kF16, DType::kF16, /*accumulate=*/true};
      shape.plain_b = true;
      gemm_->Run(shape, inverse(parity), coefficients, part, nullptr, -1);
    }
    const dim3 pairs(static_cast<unsigned>(CeilDiv(job.tokens, 2)), static_cast<unsigned>(count),
                     2);
    DistanceKernel<<<pairs, kThreads, 0, stream_>>>(job, first, rows_of_half, folded, out);
    TESSERA_CUDA_CHECK_LAUNCH("DistanceKernel");
  }
}

}  // namespace tessera::cuda
