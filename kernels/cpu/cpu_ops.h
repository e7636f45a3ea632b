// The CPU backend for production: multi-threaded, with SIMD kernels chosen at run time. Rows are
// bit-identical for every batch, thread count and instruction set (simd/kernels.h says how).
#pragma once

#include <memory>

#include "kernels/cpu/simd/kernels.h"
#include "kernels/ops.h"

namespace tessera {

// Makes the backend. `threads` > 0 counts the calling thread. `kernels` must have static storage.
std::unique_ptr<Ops> MakeCpuOps(const CpuKernels& kernels, int threads);

}  // namespace tessera
