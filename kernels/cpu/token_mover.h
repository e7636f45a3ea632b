// Ops::MoveTokens of the CPU backend. A task is one head of at most one page of moves, or of one
// segment where tokens share scales beyond a page. Threads: one thread at a time (the pool's
// caller).
#pragma once

#include "kernels/cpu/simd/kernels.h"
#include "kernels/cpu/thread_pool.h"

namespace tessera {

class TokenMover {
 public:
  TokenMover(const CpuKernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  void Move(uint8_t* arena, const KvGeometry& geometry, Format to, const QuantRule& rule,
            const TokenMove* moves, int64_t n);

 private:
  struct Part;  // K or V of one head for the tokens of one task
  struct Range {
    float min, max;
  };

  void MovePart(const Part& part) const;
  void QuantizeTokens(const Part& part, const float* x) const;
  void QuantizeChannels(const Part& part, const float* x) const;
  // Computes the codes of x[n], one per byte.
  void Quantize(const Part& part, const float* x, int n, bool per_channel, const float* scales,
                const float* offsets, uint8_t* codes) const;

  const CpuKernels& kernels_;
  ThreadPool& pool_;
};

}  // namespace tessera
