#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "kernels/cuda/common/block_sum.cuh"
#include "kernels/cuda/common/check.h"
#include "kernels/cuda/elementwise/rows.h"

namespace tessera::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 4096;

int Blocks(int64_t work) {
  return static_cast<int>(std::min(kMaxBlocks, CeilDiv<int64_t>(work, kThreads)));
}

__device__ int64_t FirstWork() { return int64_t{blockIdx.x} * kThreads + threadIdx.x; }
__device__ int64_t Stride() { return int64_t{gridDim.x} * kThreads; }

template <class T>
__global__ void EmbedKernel(const T* table, const int32_t* ids, int64_t rows, int64_t cols,
                            float* out) {
  for (int64_t i = FirstWork(); i < rows * cols; i += Stride()) {
    out[i] = static_cast<float>(table[ids[i / cols] * cols + i % cols]);
  }
}

__global__ void TakeSampledKernel(const int32_t* sampled, int32_t* ids, int64_t rows) {
  for (int64_t i = FirstWork(); i < rows; i += Stride()) {
    if (ids[i] < 0) ids[i] = sampled[-1 - ids[i]];
  }
}

// Copies rows: out[to ? to[i] : i] = in[from ? from[i] : i], in elements of type T.
template <class T>
__global__ void CopyRowsKernel(const T* in, const int32_t* from, const int32_t* to, int64_t rows,
                               int64_t cols, T* out) {
  for (int64_t i = FirstWork(); i < rows * cols; i += Stride()) {
    const int64_t row = i / cols, col = i % cols;
    const int64_t source = from != nullptr ? from[row] : row;
    const int64_t target = to != nullptr ? to[row] : row;
    out[target * cols + col] = in[source * cols + col];
  }
}

void CopyRows(cudaStream_t stream, const float* in, const int32_t* from, const int32_t* to,
              int64_t rows, int64_t cols, float* out) {
  if (rows == 0) return;
  const bool vector = cols % 4 == 0 && reinterpret_cast<uintptr_t>(in) % 16 == 0 &&
                      reinterpret_cast<uintptr_t>(out) % 16 == 0;
  if (vector) {
    CopyRowsKernel<<<Blocks(rows * cols / 4), kThreads, 0, stream>>>(
        reinterpret_cast<const float4*>(in), from, to, rows, cols / 4,
        reinterpret_cast<float4*>(out));
  } else {
    CopyRowsKernel<<<Blocks(rows * cols), kThreads, 0, stream>>>(in, from, to, rows, cols, out);
  }
  TESSERA_CUDA_CHECK_LAUNCH("CopyRowsKernel");
}

__global__ void RmsNormKernel(const float* x, const float* w, int64_t cols, float eps, float* y) {
  x += blockIdx.x * cols;
  y += blockIdx.x * cols;
  float squares = 0;
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) squares += x[c] * x[c];
  const float scale = 1 / sqrtf(BlockSum<kThreads>(squares) / static_cast<float>(cols) + eps);
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) y[c] = x[c] * scale * w[c];
}

__global__ void LayerNormKernel(const float* x, const float* w, const float* b, int64_t cols,
                                float eps, float* y) {
  x += blockIdx.x * cols;
  y += blockIdx.x * cols;
  float sum = 0, squares = 0;
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) sum += x[c];
  const float mean = BlockSum<kThreads>(sum) / static_cast<float>(cols);
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) squares += (x[c] - mean) * (x[c] - mean);
  const float scale = 1 / sqrtf(BlockSum<kThreads>(squares) / static_cast<float>(cols) + eps);
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) {
    y[c] = (x[c] - mean) * scale * w[c] + b[c];
  }
}

__global__ void SwiGluKernel(const float* x, int64_t rows, int64_t cols, float* y) {
  for (int64_t i = FirstWork(); i < rows * cols; i += Stride()) {
    const int64_t row = i / cols, col = i % cols;
    const float gate = x[row * 2 * cols + col], up = x[(row * 2 + 1) * cols + col];
    y[i] = gate / (1 + expf(-gate)) * up;
  }
}

struct PixelScale {
  float mean[3], std[3];
};

__global__ void PatchifyKernel(const uint8_t* pixels, int64_t images, int64_t side, int64_t patch,
                               PixelScale scale, float* out) {
  const int64_t grid = side / patch, work = images * side * side * 3;
  for (int64_t i = FirstWork(); i < work; i += Stride()) {
    int64_t rest = i;
    const int64_t x = rest % patch;
    rest /= patch;
    const int64_t y = rest % patch;
    rest /= patch;
    const int64_t c = rest % 3;
    rest /= 3;
    const int64_t px = rest % grid;
    rest /= grid;
    const int64_t py = rest % grid, image = rest / grid;
    const int64_t pixel = (image * side + py * patch + y) * side + px * patch + x;
    out[i] = (static_cast<float>(pixels[pixel * 3 + c]) / 255.0f - scale.mean[c]) / scale.std[c];
  }
}

}  // namespace

void Embed(cudaStream_t stream, const void* table, DType dtype, const int32_t* ids, int64_t rows,
           int64_t cols, float* out) {
  if (rows == 0) return;
  const int blocks = Blocks(rows * cols);
  switch (dtype) {
    case DType::kF32:
      EmbedKernel<<<blocks, kThreads, 0, stream>>>(static_cast<const float*>(table), ids, rows,
                                                   cols, out);
      break;
    case DType::kF16:
      EmbedKernel<<<blocks, kThreads, 0, stream>>>(static_cast<const __half*>(table), ids, rows,
                                                   cols, out);
      break;
    case DType::kBF16:
      EmbedKernel<<<blocks, kThreads, 0, stream>>>(static_cast<const __nv_bfloat16*>(table), ids,
                                                   rows, cols, out);
      break;
  }
  TESSERA_CUDA_CHECK_LAUNCH("EmbedKernel");
}

void TakeSampled(cudaStream_t stream, const int32_t* sampled, int32_t* ids, int64_t rows) {
  if (rows == 0) return;
  TakeSampledKernel<<<Blocks(rows), kThreads, 0, stream>>>(sampled, ids, rows);
  TESSERA_CUDA_CHECK_LAUNCH("TakeSampledKernel");
}

void ScatterRows(cudaStream_t stream, const float* in, const int32_t* to_row, int64_t rows,
                 int64_t cols, float* out) {
  CopyRows(stream, in, nullptr, to_row, rows, cols, out);
}

void GatherRows(cudaStream_t stream, const float* in, const int32_t* from_row, int64_t rows,
                int64_t cols, float* out) {
  CopyRows(stream, in, from_row, nullptr, rows, cols, out);
}

void RmsNorm(cudaStream_t stream, const float* x, const float* w, int64_t rows, int64_t cols,
             float eps, float* y) {
  if (rows == 0) return;
  RmsNormKernel<<<static_cast<int>(rows), kThreads, 0, stream>>>(x, w, cols, eps, y);
  TESSERA_CUDA_CHECK_LAUNCH("RmsNormKernel");
}

void LayerNorm(cudaStream_t stream, const float* x, const float* w, const float* b, int64_t rows,
               int64_t cols, float eps, float* y) {
  if (rows == 0) return;
  LayerNormKernel<<<static_cast<int>(rows), kThreads, 0, stream>>>(x, w, b, cols, eps, y);
  TESSERA_CUDA_CHECK_LAUNCH("LayerNormKernel");
}

void SwiGlu(cudaStream_t stream, const float* x, int64_t rows, int64_t cols, float* y) {
  if (rows == 0) return;
  SwiGluKernel<<<Blocks(rows * cols), kThreads, 0, stream>>>(x, rows, cols, y);
  TESSERA_CUDA_CHECK_LAUNCH("SwiGluKernel");
}

void Patchify(cudaStream_t stream, const uint8_t* pixels, int64_t images, int64_t side,
              int64_t patch, const float mean[3], const float std[3], float* out) {
  TESSERA_CHECK(patch > 0 && side % patch == 0);
  if (images == 0) return;
  PixelScale scale;
  std::copy_n(mean, 3, scale.mean);
  std::copy_n(std, 3, scale.std);
  PatchifyKernel<<<Blocks(images * side * side * 3), kThreads, 0, stream>>>(pixels, images, side,
                                                                            patch, scale, out);
  TESSERA_CUDA_CHECK_LAUNCH("PatchifyKernel");
}

}  // namespace tessera::cuda
