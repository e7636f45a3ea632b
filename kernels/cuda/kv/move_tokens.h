// Ops::MoveTokens on the device: quantizes 16-bit tokens into pages of any format that HoldsTokens.
//
// Codes, scales and offsets are those of quantize.h bit for bit: float32, every operation rounded
// by itself, in the same order.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/common/page_parts.h"
#include "kernels/ops.h"

namespace tessera::cuda {

// QuantRule for .cu files, which cannot include quantize.h (C++20).
struct MoveRule {
  float clip[2];  // K, V
  bool integer_offset;
  float quantile;  // only for segments, else 0 (CHECK)
};

// Launches the moves. `moves` is device memory [n]. The device checks the list (slots in range,
// different pages on both sides, whole pages in order); a wrong list traps the kernel and ends the
// process.
void LaunchMoveTokens(cudaStream_t stream, uint8_t* arena, const KvGeometry& geometry, Format to,
                      const MoveRule& rule, const TokenMove* moves, int64_t n);

// The same as Ops::MoveTokens.
void MoveTokens(cudaStream_t stream, uint8_t* arena, const KvGeometry& geometry, Format to,
                const QuantRule& rule, const TokenMove* moves, int64_t n);

}  // namespace tessera::cuda
