#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstring>

#include "kernels/cuda/dense.h"

namespace tessera {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 4096;

int Blocks(int64_t work) {
  return static_cast<int>(std::min(kMaxBlocks, CeilDiv<int64_t>(work, kThreads)));
}

constexpr int64_t Pad(DType dtype, int64_t n) { return RoundUp(n, 16 / DTypeBytes(dtype)); }

__device__ float Round(float x, __nv_bfloat16* to) {
  *to = __float2bfloat16_rn(x);
  return __bfloat162float(*to);
}
// Saturates as FloatToHalf does; NaN stays.
__device__ float Round(float x, __half* to) {
  if (fabsf(x) > 65504.0f) x = copysignf(65504.0f, x);
  *to = __float2half_rn(x);
  return __half2float(*to);
}
__device__ float Round(float x, float* to) { return *to = x; }

// x [rows, cols] -> out [terms, rows, padded]: the terms of every element (precision.h), zeros in
// the padding. Four columns a thread where `vector` says that rows of x are 16-byte aligned.
template <class T>
__global__ void SplitKernel(const float* x, int64_t rows, int64_t cols, int64_t padded, int terms,
                            bool vector, T* out) {
  const int64_t quads = padded / 4, work = rows * quads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < work;
       i += int64_t{gridDim.x} * kThreads) {
    const int64_t row = i / quads, col = i % quads * 4;
    float v[4] = {0, 0, 0, 0};
    if (vector && col + 4 <= cols) {
      const float4 f = *reinterpret_cast<const float4*>(x + row * cols + col);
      v[0] = f.x, v[1] = f.y, v[2] = f.z, v[3] = f.w;
    } else {
      for (int j = 0; j < 4; ++j) {
        if (col + j < cols) v[j] = x[row * cols + col + j];
      }
    }
    for (int t = 0; t < terms; ++t) {
      alignas(4 * sizeof(T)) T rounded[4];
      for (int j = 0; j < 4; ++j) v[j] -= Round(v[j], &rounded[j]);
      T* to = out + (t * rows + row) * padded + col;
      if constexpr (sizeof(T) == 2) {
        *reinterpret_cast<uint2*>(to) = *reinterpret_cast<const uint2*>(rounded);
      } else {
        *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(rounded);
      }
    }
  }
}

__device__ float Activate(float x, Activation act) {
  switch (act) {
    case Activation::kNone:
      return x;
    case Activation::kGelu:  // erfc keeps the relative accuracy of the left tail, 1 + erf does not
      return 0.5f * x * erfcf(-x * 0.70710678118654752f);
    case Activation::kQuickGelu:
      return x / (1 + expf(-1.702f * x));
    case Activation::kSilu:
      return x / (1 + expf(-x));
  }
  return x;
}

// y[rows, out] = act(sum of the terms' products + bias) + residual. Smallest terms first.
__global__ void EpilogueKernel(const float* product, int64_t rows, int64_t out, int64_t padded,
                               int terms, const float* bias, Activation act, const float* residual,
                               float* y) {
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < rows * out;
       i += int64_t{gridDim.x} * kThreads) {
    const int64_t row = i / out, col = i % out;
    float v = 0;
    for (int t = terms - 1; t >= 0; --t) v += product[(t * rows + row) * padded + col];
    if (bias != nullptr) v += bias[col];
    v = Activate(v, act);
    if (residual != nullptr) v += residual[i];
    y[i] = v;
  }
}

// The same, four columns a thread, where out is a multiple of 4 and everything 16-byte aligned.
__global__ void VectorEpilogueKernel(const float4* product, int64_t rows, int64_t out,
                                     int64_t padded, int terms, const float4* bias, Activation act,
                                     const float4* residual, float4* y) {
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < rows * out;
       i += int64_t{gridDim.x} * kThreads) {
    const int64_t row = i / out, col = i % out;
    float4 v = {0, 0, 0, 0};
    for (int t = terms - 1; t >= 0; --t) {
      const float4 p = product[(t * rows + row) * padded + col];
      v.x += p.x, v.y += p.y, v.z += p.z, v.w += p.w;
    }
    if (bias != nullptr) {
      const float4 b = bias[col];
      v.x += b.x, v.y += b.y, v.z += b.z, v.w += b.w;
    }
    v = {Activate(v.x, act), Activate(v.y, act), Activate(v.z, act), Activate(v.w, act)};
    if (residual != nullptr) {
      const float4 r = residual[i];
      v.x += r.x, v.y += r.y, v.z += r.z, v.w += r.w;
    }
    y[i] = v;
  }
}

bool Aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

float BiasElement(const void* bias, DType dtype, int64_t i) {
  const auto* p = static_cast<const uint8_t*>(bias) + i * DTypeBytes(dtype);
  float f;
  uint16_t bits;
  if (dtype == DType::kF32) {
    std::memcpy(&f, p, 4);
    return f;
  }
  std::memcpy(&bits, p, 2);
  if (dtype == DType::kF16) return __half2float(__half(__half_raw{bits}));
  return __bfloat162float(__nv_bfloat16(__nv_bfloat16_raw{bits}));
}

}  // namespace

Linear CudaDense::MakeLinear(const std::vector<LinearPart>& parts, int64_t cols, DType dtype,
                             Ops& memory) {
  TESSERA_CHECK(!parts.empty() && cols > 0);
  Linear w;
  w.in = cols;
  w.dtype = dtype;
  for (const LinearPart& part : parts) w.out += part.rows;
  const int64_t row_bytes = cols * DTypeBytes(dtype), pitch = Pad(dtype, cols) * DTypeBytes(dtype);
  w.weight = memory.Allocate(Pad(dtype, w.out) * pitch);
  std::vector<float> bias;
  int64_t row = 0;
  for (const LinearPart& part : parts) {
    TESSERA_CHECK((part.bias != nullptr) == (parts[0].bias != nullptr));
    TESSERA_CUDA_CHECK(cudaMemcpy2DAsync(w.weight.get() + row * pitch, pitch, part.weight,
                                         row_bytes, row_bytes, part.rows, cudaMemcpyHostToDevice,
                                         stream_));
    row += part.rows;
    if (part.bias == nullptr) continue;
    for (int64_t i = 0; i < part.rows; ++i) bias.push_back(BiasElement(part.bias, dtype, i));
  }
  if (!bias.empty()) {
    w.bias = memory.Allocate(w.out * 4);
    memory.CopyToDevice(w.bias.get(), bias.data(), w.out * 4);
  }
  TESSERA_CUDA_CHECK(cudaStreamSynchronize(stream_));  // the parts may go when we return
  return w;
}

void CudaDense::MatMul(const Linear& w, const float* x, int64_t rows, float* y, Activation act,
                       const float* residual) {
  if (rows == 0) return;
  const int64_t in = Pad(w.dtype, w.in), out = Pad(w.dtype, w.out);
  const int terms = ActivationTerms(w.dtype, rows, precise_);
  const void* operand = x;
  if (w.dtype != DType::kF32 || in != w.in || !Aligned(x)) {
    void* split = operand_.Get(terms * rows * in * DTypeBytes(w.dtype));
    operand = split;
    const int blocks = Blocks(rows * in / 4);
    const bool vector = Aligned(x) && w.in % 4 == 0;
    if (w.dtype == DType::kBF16) {
      SplitKernel<<<blocks, kThreads, 0, stream_>>>(x, rows, w.in, in, terms, vector,
                                                    static_cast<__nv_bfloat16*>(split));
    } else if (w.dtype == DType::kF16) {
      SplitKernel<<<blocks, kThreads, 0, stream_>>>(x, rows, w.in, in, terms, vector,
                                                    static_cast<__half*>(split));
    } else {
      SplitKernel<<<blocks, kThreads, 0, stream_>>>(x, rows, w.in, in, terms, vector,
                                                    static_cast<float*>(split));
    }
    TESSERA_CUDA_CHECK_LAUNCH("SplitKernel");
  }

  GemmShape shape;
  shape.m = terms * rows;
  shape.n = out;
  shape.k = in;
  shape.in = w.dtype;
  const auto* bias = reinterpret_cast<const float*>(w.bias.get());
  const bool plain = terms == 1 && out == w.out && Aligned(y) && bias == nullptr &&
                     act == Activation::kNone && (residual == nullptr || residual == y);
  if (plain) {  // the product may go, or be added, straight to where it belongs
    shape.accumulate = residual != nullptr;
    gemm_.Run(shape, operand, w.weight.get(), y);
    return;
  }
  auto* product = static_cast<float*>(product_.Get(shape.m * out * 4));
  gemm_.Run(shape, operand, w.weight.get(), product);
  const bool vector = w.out % 4 == 0 && Aligned(y) && Aligned(bias) && Aligned(residual);
  if (vector) {
    VectorEpilogueKernel<<<Blocks(rows * w.out / 4), kThreads, 0, stream_>>>(
        reinterpret_cast<const float4*>(product), rows, w.out / 4, out / 4, terms,
        reinterpret_cast<const float4*>(bias), act, reinterpret_cast<const float4*>(residual),
        reinterpret_cast<float4*>(y));
  } else {
    EpilogueKernel<<<Blocks(rows * w.out), kThreads, 0, stream_>>>(product, rows, w.out, out, terms,
                                                                   bias, act, residual, y);
  }
  TESSERA_CUDA_CHECK_LAUNCH("EpilogueKernel");
}

}  // namespace tessera
