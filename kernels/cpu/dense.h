// Dense layers of the CPU backend: packs weights into panels and divides a MatMul into tasks.
//
// With few rows (decode), weights are read once, straight from the panels, several panels at a
// time. With more rows (prefill), the work is blocked for the caches: activations are copied into
// blocks of kDenseBlock columns, and a task converts the weights of a register tile's panels once
// per block and multiplies them with all its rows. Threads: one thread at a time (the pool's
// caller).
#pragma once

#include <vector>

#include "kernels/cpu/simd/kernels.h"
#include "kernels/cpu/thread_pool.h"

namespace tessera {

class DenseRunner {
 public:
  DenseRunner(const CpuKernels& kernels, ThreadPool& pool);

  // Packs weights for Run (Ops::MakeLinear). The weights keep their dtype; packing loses no bit.
  Linear Pack(const std::vector<LinearPart>& parts, int64_t cols, DType dtype);
  void Run(const DenseCall& call);

 private:
  void RunDirect(const DenseCall& call);
  void RunBlocked(const DenseCall& call);
  void PackRows(const DenseCall& call);
  // Computes panels [begin, end) for rows [row, row + rows) of the packed activations.
  void RunBlock(const DenseCall& call, int64_t begin, int64_t end, int64_t row, int64_t rows,
                int worker);

  const CpuKernels& kernels_;
  ThreadPool& pool_;
  Buffer packed_rows_;  // float [block of k][rows][kDenseStride]; grows on demand
  int64_t packed_bytes_ = 0;
  std::vector<Buffer> sums_;     // per worker: float [kChunkRows][kGroupPanels * 16]
  std::vector<Buffer> weights_;  // per worker: float [tile_panels][kDenseBlock][16]
};

}  // namespace tessera
