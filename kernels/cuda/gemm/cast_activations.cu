#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "kernels/cuda/common/block_sum.cuh"
#include "kernels/cuda/gemm/activate.cuh"
#include "kernels/cuda/gemm/cast_activations.h"

namespace tessera::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 4096;

__device__ float Round(float x, __nv_bfloat16* to) {
  *to = __float2bfloat16_rn(x);
  return __bfloat162float(*to);
}
// Saturates as FloatToHalf; NaN stays NaN.
__device__ float Round(float x, __half* to) {
  if (fabsf(x) > 65504.0f) x = copysignf(65504.0f, x);
  *to = __float2half_rn(x);
  return __half2float(*to);
}
__device__ float Round(float x, float* to) { return *to = x; }

// Stores the terms (precision.h) of four neighbouring elements, each term to its own plane.
template <class T>
__device__ void StoreTerms(float (&v)[4], const ActivationCast& args, int64_t row, int64_t col,
                           T* out) {
  for (int t = 0; t < args.terms; ++t) {
    alignas(4 * sizeof(T)) T rounded[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) v[j] -= Round(v[j], &rounded[j]);
    T* to = out + (t * args.rows + row) * args.padded + col;
    if constexpr (sizeof(T) == 2) {
      *reinterpret_cast<uint2*>(to) = *reinterpret_cast<const uint2*>(rounded);
    } else {
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(rounded);
    }
  }
}

__device__ void Load(const float* from, float (&v)[4]) {
  const float4 f = *reinterpret_cast<const float4*>(from);
  v[0] = f.x, v[1] = f.y, v[2] = f.z, v[3] = f.w;
}

// Each thread takes four columns. It loads them together if `vector`, which says that rows of x are
// 16-byte aligned.
template <class T, Prologue::Kind kKind>
__global__ void __launch_bounds__(kThreads)
    ElementsKernel(ActivationCast args, bool vector, T* out) {
  const int64_t quads = args.padded / 4, work = args.rows * quads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < work;
       i += int64_t{gridDim.x} * kThreads) {
    const int64_t row = i / quads, col = i % quads * 4;
    const float* x = args.x + row * args.cols * (kKind == Prologue::kSwiGlu ? 2 : 1) + col;
    float v[4] = {};
    if (vector && col + 4 <= args.cols) {
      Load(x, v);
      if constexpr (kKind == Prologue::kSwiGlu) {
        float up[4];
        Load(x + args.cols, up);
#pragma unroll
        for (int j = 0; j < 4; ++j) v[j] = v[j] / (1 + expf(-v[j])) * up[j];
      }
    } else if constexpr (kKind != Prologue::kSwiGlu) {
      for (int j = 0; j < 4; ++j) {
        if (col + j < args.cols) v[j] = x[j];
      }
    }
    if constexpr (kKind == Prologue::kActivation) {  // also maps the padding's zeros to zeros
#pragma unroll
      for (int j = 0; j < 4; ++j) v[j] = Activate(v[j], args.prologue.activation);
    }
    StoreTerms(v, args, row, col, out);
  }
}

// A block has one row. Each thread keeps kKept quads of it in registers; the rest of a longer row
// is read again from the nearest cache.
template <class T, bool kLayer>
__global__ void __launch_bounds__(kThreads) NormKernel(ActivationCast args, T* out) {
  constexpr int kKept = 4;
  const float* x = args.x + blockIdx.x * args.cols;
  const auto n = static_cast<float>(args.cols);
  float kept[kKept][4] = {};
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const int64_t c = (i * kThreads + threadIdx.x) * 4;
    if (c < args.cols) Load(x + c, kept[i]);
  }
  const auto for_each_quad = [&](const auto& f) {
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      const int64_t c = (i * kThreads + threadIdx.x) * 4;
      if (c < args.cols) f(c, kept[i]);
    }
    for (int64_t c = (kKept * kThreads + threadIdx.x) * 4; c < args.cols; c += kThreads * 4) {
      float v[4];
      Load(x + c, v);
      f(c, v);
    }
  };
  float mean = 0, squares = 0;
  if (kLayer) {
    for_each_quad([&](int64_t, const float(&v)[4]) { mean += (v[0] + v[1]) + (v[2] + v[3]); });
    mean = BlockSum<kThreads>(mean) / n;
  }
  for_each_quad([&](int64_t, const float(&v)[4]) {
#pragma unroll
    for (float each : v) squares += (each - mean) * (each - mean);
  });
  const float scale = 1 / sqrtf(BlockSum<kThreads>(squares) / n + args.prologue.eps);
  for_each_quad([&](int64_t c, float(&v)[4]) {
    float w[4], b[4] = {};
    Load(args.prologue.weight + c, w);
    if (kLayer) Load(args.prologue.bias + c, b);
#pragma unroll
    for (int j = 0; j < 4; ++j) v[j] = (v[j] - mean) * scale * w[j] + b[j];
    StoreTerms(v, args, blockIdx.x, c, out);
  });
  for (int64_t c = args.cols + threadIdx.x * 4; c < args.padded; c += kThreads * 4) {
    float zeros[4] = {};
    StoreTerms(zeros, args, blockIdx.x, c, out);
  }
}

bool Aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

template <class T>
void Launch(cudaStream_t stream, const ActivationCast& args, T* out) {
  const auto rows = static_cast<unsigned>(args.rows);
  const auto blocks = static_cast<unsigned>(
      std::min(kMaxBlocks, CeilDiv<int64_t>(args.rows * args.padded / 4, kThreads)));
  const bool vector = Aligned(args.x) && args.cols % 4 == 0;
  switch (args.prologue.kind) {
    case Prologue::kNone:
      ElementsKernel<T, Prologue::kNone><<<blocks, kThreads, 0, stream>>>(args, vector, out);
      break;
    case Prologue::kSwiGlu:
      ElementsKernel<T, Prologue::kSwiGlu><<<blocks, kThreads, 0, stream>>>(args, vector, out);
      break;
    case Prologue::kActivation:
      ElementsKernel<T, Prologue::kActivation><<<blocks, kThreads, 0, stream>>>(args, vector, out);
      break;
    case Prologue::kRmsNorm:
      NormKernel<T, false><<<rows, kThreads, 0, stream>>>(args, out);
      break;
    case Prologue::kLayerNorm:
      NormKernel<T, true><<<rows, kThreads, 0, stream>>>(args, out);
      break;
  }
  TESSERA_CUDA_CHECK_LAUNCH("a kernel of CastActivations");
}

}  // namespace

bool FusesPrologue(const ActivationCast& args) {
  if (args.prologue.kind == Prologue::kNone || args.prologue.kind == Prologue::kActivation) {
    return true;
  }
  return args.cols % 4 == 0 && Aligned(args.x) && Aligned(args.prologue.weight) &&
         Aligned(args.prologue.bias);
}

void CastActivations(cudaStream_t stream, DType dtype, const ActivationCast& args, void* out) {
  TESSERA_CHECK(FusesPrologue(args));
  if (args.rows == 0) return;
  switch (dtype) {
    case DType::kF32:
      return Launch(stream, args, static_cast<float*>(out));
    case DType::kF16:
      return Launch(stream, args, static_cast<__half*>(out));
    case DType::kBF16:
      return Launch(stream, args, static_cast<__nv_bfloat16*>(out));
  }
}

}  // namespace tessera::cuda
