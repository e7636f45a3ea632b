// What the backends in host memory share of operations that need no instruction set.
#pragma once

#include <chrono>

#include "kernels/ops.h"

namespace tessera {

// out[rows, in] = the prologue's values of x, by the operations of `ops`.
void ApplyPrologue(Ops& ops, const Prologue& prologue, const float* x, int64_t rows, int64_t in,
                   float* out);

// Ops::SetMark and SecondsBetween, where calls are done when they return.
class HostMarks {
 public:
  void Set(int mark) { at_[mark] = Clock::now(); }
  double SecondsBetween(int from, int to) const {
    return std::chrono::duration<double>(at_[to] - at_[from]).count();
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point at_[Ops::kMarks];
};

// Ops::TakeDrawn.
void TakeDrawnIds(const int32_t* drawn, int32_t* ids, int64_t rows);

}  // namespace tessera
