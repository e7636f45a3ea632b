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

int32_t LargestLogit(const float* logits, int64_t cols, const uint8_t* banned) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  int64_t best = -1;
  float most = 0;
  for (int64_t c = 0; c < cols; ++c) {
    if (banned[c] != 0) continue;
    float x = std::min(logits[c], kLargest);
    if (logits[c] != logits[c]) x = -std::numeric_limits<float>::infinity();
    if (best >= 0 && !(x > most)) continue;
    best = c;
    most = x;
  }
  return static_cast<int32_t>(std::max<int64_t>(best, 0));
}

}  // namespace tessera
