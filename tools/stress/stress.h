// Stress checkpoints: the same function with numbers that are harder to store.
//
// Real LLaVA models have key channels far larger than the rest, and tokens with massive
// activations; a small model trained for tests has neither, so that 2-bit rounding barely hurts it.
// A stress checkpoint has them by construction:
//   - key outliers: in every head the RoPE pairs (5, 69) and (40, 104) of 128 dimensions (the same
//     shares of other head sizes) have W_k's rows and bias multiplied by `factor` and W_q's divided
//     by it. A pair turns as a whole, so every product q k^T stays as it was.
//   - massive activations (massive.h).
// Weights become float32, so that nothing is rounded; names and files stay.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace tessera {

struct StressOptions {
  double factor = 1;  // > 0, finite; 1: none
  bool massive = false;
};

// Reads the checkpoint in `dir` and writes `out`, a directory that is made, or is empty. Errors
// name file and tensor.
absl::Status WriteStressCheckpoint(const std::string& dir, const std::string& out,
                                   const StressOptions& options);

}  // namespace tessera
