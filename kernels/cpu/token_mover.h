// Ops::MoveTokens of the CPU backend: tasks of one page of moves or less, all heads.
//
// Threads: one thread at a time (the pool's caller).
#pragma once

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/thread_pool.h"

namespace tessera {

class TokenMover {
 public:
  TokenMover(const CpuKernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  void Move(uint8_t* arena, const KvGeometry& geometry, Format to, const QuantRule& rule,
            const TokenMove* moves, int64_t n);

 private:
  struct Part;  // K or V of one head, of the tokens of one task

  void MovePart(const Part& part) const;
  void QuantizeTokens(const Part& part, const float* x) const;
  void QuantizeChannels(const Part& part, const float* x) const;
  void StoreRow(const Part& part, int64_t move, const float* x, bool per_channel,
                const float* scales, const float* offsets) const;

  const CpuKernels& kernels_;
  ThreadPool& pool_;
};

}  // namespace tessera
