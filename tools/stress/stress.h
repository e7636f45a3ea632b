// Writes stress checkpoints: models that compute the same function with numbers that are harder to
// store.
//
// Real LLaVA models have key channels far larger than the rest, and tokens with massive
// activations. A small model trained for tests has neither, so 2-bit rounding barely hurts it. A
// stress checkpoint has them by construction:
//   - Key outliers: in every head, two RoPE pairs have the rows and bias of W_k multiplied by
//     `factor`, and those of W_q divided by it. The pairs are (5, 69) and (40, 104) of 128
//     dimensions, and the same fractions of other head sizes. RoPE rotates a pair as a whole, so
//     every product q k^T stays the same.
//   - Massive activations (massive.h).
// Weights become float32, so that nothing is rounded. Names and files stay the same.
//
// Threads: functions only, safe.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace tessera {

struct StressOptions {
  double factor = 1;  // positive and finite; 1 makes no outliers
  bool massive = false;
};

// Reads the checkpoint in `dir` and writes the stress checkpoint to `out`, which is a new or an
// empty directory. Errors name file and tensor.
absl::Status WriteStressCheckpoint(const std::string& dir, const std::string& out,
                                   const StressOptions& options);

}  // namespace tessera
