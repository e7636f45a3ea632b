// Samples a token from logits on the host: one row of Ops::SampleTokens. Threads: safe.
#pragma once

#include <cstdint>

#include "kernels/sampling_ops.h"

namespace tessera {

// Returns a token as Ops::SampleTokens. A null `rule` means temperature 0.
int32_t SampleRow(const float* logits, int64_t cols, const uint8_t* banned, const SampleRule* rule);

}  // namespace tessera
