#include "kernels/host_ops.h"

#include <algorithm>
#include <limits>

namespace tessera {

void ApplyPrologue(Ops& ops, const Prologue& p, const float* x, int64_t rows, int64_t in,
                   float* out) {
  switch (p.kind) {
    case Prologue::kNone:
      TESSERA_CHECK(false);
    case Prologue::kRmsNorm:
      return ops.RmsNorm(x, p.weight, rows, in, p.eps, out);
    case Prologue::kLayerNorm:
      return ops.LayerNorm(x, p.weight, p.bias, rows, in, p.eps, out);
    case Prologue::kSwiGlu:
      return ops.SwiGlu(x, rows, in, out);
  }
}

void TakeDrawnIds(const int32_t* drawn, int32_t* ids, int64_t rows) {
  for (int64_t r = 0; r < rows; ++r) {
    if (ids[r] < 0) ids[r] = drawn[-1 - ids[r]];
  }
}

}  // namespace tessera
