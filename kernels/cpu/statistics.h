// The operations of kernels/statistics_ops.h on the CPU.
//
// Low-pass residuals: a signal's base is its convolution with a Dirichlet kernel over the even
// extension (x backwards, then x), which has period 2N. If coefficients 0 .. w are kept, h[d] =
// sin((2w + 1) pi d / 2N) / (2N sin(pi d / 2N)). Any N therefore takes two transforms of the first
// power of two that holds 3N - 1 values, for 32 channels at a time (16 complex lanes).
//
// Threads: one thread at a time (the pool's caller). Scratch memory lives for one call.
#pragma once

#include <vector>

#include "kernels/cpu/simd/kernels.h"
#include "kernels/cpu/thread_pool.h"

namespace tessera {

class StatisticsRunner {
 public:
  StatisticsRunner(const CpuKernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  void RowPeaks(const float* x, const int32_t* from_row, int64_t rows, int64_t cols, int64_t top,
                float* peaks, float* medians);
  void LowPass(const uint8_t* arena, const KvGeometry& geometry, const PageId* pages,
               int64_t layer_pages, const LowPassSegment& segment, int64_t out_tokens, float* out);
  void Columns(const float* qkv, const int32_t* query_begin, const ColumnJob* jobs,
               int64_t num_jobs, int64_t heads, const KvLayerView& kv, float* columns);

 private:
  struct LowPassTask;
  void RunTask(const LowPassTask& task, float* z, float* sums) const;
  // Computes the attention weights of one row and head over the first `visible` tokens of the
  // sequence's runs.
  void Weights(const float* q, int head, const KvLayerView& kv, int32_t sequence, int64_t visible,
               float* out) const;

  const CpuKernels& kernels_;
  ThreadPool& pool_;
};

}  // namespace tessera
