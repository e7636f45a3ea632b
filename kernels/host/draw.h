// Drawing a token from logits, on the host: one row of Ops::DrawTokens. Threads: safe.
#pragma once

#include <cstdint>

#include "kernels/sampling_ops.h"

namespace tessera {

// As Ops::DrawTokens; `rule` null: temperature 0.
int32_t DrawRow(const float* logits, int64_t cols, const uint8_t* banned, const DrawRule* rule);

}  // namespace tessera
