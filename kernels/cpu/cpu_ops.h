// The practical CPU backend: multi-threaded, SIMD chosen at run time, bit-identical rows whatever
// the batch, the thread count or the instruction set (kernels.h says how).
#pragma once

#include <memory>

#include "kernels/cpu/simd/kernels.h"
#include "kernels/ops.h"

namespace tessera {

// `threads` > 0, the caller's included. `kernels` lives for ever.
std::unique_ptr<Ops> MakeCpuOps(const CpuKernels& kernels, int threads);

}  // namespace tessera
