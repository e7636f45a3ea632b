// Row-wise ops on the device: embedding, sampled ids, copies of rows, norms, SwiGLU and image
// patches.
//
// Shapes and rules are those of ops.h. All pointers except `mean` and `std` are device memory.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "base/base.h"

namespace tessera::cuda {

void Embed(cudaStream_t stream, const void* table, DType dtype, const int32_t* ids, int64_t rows,
           int64_t cols, float* out);
void TakeSampled(cudaStream_t stream, const int32_t* sampled, int32_t* ids, int64_t rows);
void ScatterRows(cudaStream_t stream, const float* in, const int32_t* to_row, int64_t rows,
                 int64_t cols, float* out);
void GatherRows(cudaStream_t stream, const float* in, const int32_t* from_row, int64_t rows,
                int64_t cols, float* out);
void RmsNorm(cudaStream_t stream, const float* x, const float* w, int64_t rows, int64_t cols,
             float eps, float* y);
void LayerNorm(cudaStream_t stream, const float* x, const float* w, const float* b, int64_t rows,
               int64_t cols, float eps, float* y);
void SwiGlu(cudaStream_t stream, const float* x, int64_t rows, int64_t cols, float* y);
void Patchify(cudaStream_t stream, const uint8_t* pixels, int64_t images, int64_t side,
              int64_t patch, const float mean[3], const float std[3], float* out);

}  // namespace tessera::cuda
