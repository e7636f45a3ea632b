// The arguments that the kernels of low-pass residuals share.
#pragma once

#include <cuda_fp16.h>

#include "kernels/cuda/low_pass/low_pass.h"

namespace tessera::cuda {

struct LowPassJob {
  const uint8_t* arena;
  KvGeometry geometry;
  const PageId* pages;
  int layer_pages, first, tokens, kept;
  int64_t out_tokens;  // tokens per layer in the result

  // Returns token t's 16-bit numbers of one head's K or V.
  __device__ const __half* Row(int layer, int head, bool value, int t) const {
    constexpr int kPage = PageTokens(Format::kRaw16);
    const int at = first + t;
    const PageId page = pages[int64_t{layer} * layer_pages + at / kPage];
    return reinterpret_cast<const __half*>(arena + page * kPageUnitBytes +
                                           Raw16Offset(geometry.head_dim, head, value, at % kPage));
  }
  __host__ __device__ int channels() const { return geometry.kv_heads * geometry.head_dim; }
};

// Sums partial [layers, 2 * parts, tokens, 2] (squared distance and squared norm; K in even parts,
// V in odd) to the job's tokens of out [layers, out_tokens, 4], as Ops::LowPassResiduals.
void SumParts(const LowPassJob& job, const float* partial, int parts, float* out,
              cudaStream_t stream);

}  // namespace tessera::cuda
