#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstring>

#include "kernels/cuda/elementwise/rows.h"
#include "kernels/cuda/gemm/activate.cuh"
#include "kernels/cuda/gemm/cast_activations.h"
#include "kernels/cuda/gemm/dense.h"
#include "kernels/cuda/gemm/skinny_gemm.h"

namespace tessera {
namespace {

using cuda::Activate;

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 4096;

int Blocks(int64_t work) {
  return static_cast<int>(std::min(kMaxBlocks, CeilDiv<int64_t>(work, kThreads)));
}

constexpr int64_t Pad(DType dtype, int64_t n) { return RoundUp(n, 16 / DTypeBytes(dtype)); }

// Computes y[rows, out] = act(sum of the terms' products + bias) + residual. The smallest terms are
// added first.
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

// The same with four columns per thread. REQUIRES: out is a multiple of 4 and everything is 16-byte
// aligned.
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
  TESSERA_CUDA_CHECK(
      cudaStreamSynchronize(stream_));  // the caller may free the parts after this returns
  return w;
}

const float* CudaDense::Before(const Prologue& p, const float* x, int64_t rows, int64_t in) {
  auto* out = static_cast<float*>(before_.Get(rows * in * 4));
  switch (p.kind) {
    case Prologue::kNone:
      return x;
    case Prologue::kRmsNorm:
      cuda::RmsNorm(stream_, x, p.weight, rows, in, p.eps, out);
      break;
    case Prologue::kLayerNorm:
      cuda::LayerNorm(stream_, x, p.weight, p.bias, rows, in, p.eps, out);
      break;
    case Prologue::kSwiGlu:
      cuda::SwiGlu(stream_, x, rows, in, out);
      break;
    case Prologue::kActivation:
      EpilogueKernel<<<Blocks(rows * in), kThreads, 0, stream_>>>(x, rows, in, in, 1, nullptr,
                                                                  p.activation, nullptr, out);
      TESSERA_CUDA_CHECK_LAUNCH("EpilogueKernel");
      break;
  }
  return out;
}

void CudaDense::MatMul(const Linear& w, const float* x, int64_t rows, float* y, Activation act,
                       const float* residual, const Prologue& prologue) {
  if (rows == 0) return;
  const auto* bias = reinterpret_cast<const float*>(w.bias.get());
  const int64_t in = Pad(w.dtype, w.in), out = Pad(w.dtype, w.out);
  const int terms = ActivationTerms(w.dtype, precise_);
  const bool floats = FloatActivations(w.dtype, rows, w.in);
  cuda::ActivationCast cast{x, rows, w.in, in, terms, prologue};
  if (prologue.kind != Prologue::kNone && (floats || !cuda::FusesPrologue(cast))) {
    cast.x = x = Before(prologue, x, rows, w.in);
    cast.prologue = {};
  }
  if (w.dtype != DType::kF32 && floats && Aligned(x)) {
    cuda::SkinnyGemmArgs args;
    args.weight = w.weight.get();
    args.bias = bias;
    args.x = x;
    args.residual = residual;
    args.y = y;
    args.in = w.in;
    args.out = w.out;
    args.rows = static_cast<int>(rows);
    args.act = act;
    cuda::SkinnyGemm(stream_, w.dtype, args);
    return;
  }
  const void* cast_x = x;
  if (w.dtype != DType::kF32 || in != w.in || !Aligned(x)) {
    void* made = cast_.Get(terms * rows * in * DTypeBytes(w.dtype));
    cuda::CastActivations(stream_, w.dtype, cast, made);
    cast_x = made;
  }

  GemmShape shape;
  shape.m = terms * rows;
  shape.n = out;
  shape.k = in;
  shape.in = w.dtype;
  const bool plain = terms == 1 && out == w.out && Aligned(y) && act == Activation::kNone &&
                     (residual == nullptr || residual == y);
  if (plain) {  // the product can be written or added in place
    shape.accumulate = residual != nullptr;
    shape.bias = bias != nullptr;
    gemm_.Run(shape, cast_x, w.weight.get(), y, bias);
    return;
  }
  auto* product = static_cast<float*>(product_.Get(shape.m * out * 4));
  gemm_.Run(shape, cast_x, w.weight.get(), product);
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
