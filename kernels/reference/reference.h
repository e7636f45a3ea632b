// The reference backend: every op of ops.h written as its formula, sums in double, one thread.
//
// Every other backend is tested against it. It is never optimised and never tuned to match another
// backend. Linear holds the weights row-major [out, in] in their stored dtype. Only the rotation,
// the patches and the final rounding of each output are float32 operations, in the order that ops.h
// states.
#pragma once

#include <memory>

#include "kernels/ops.h"

namespace tessera {

std::unique_ptr<Ops> MakeReferenceOps();

}  // namespace tessera
