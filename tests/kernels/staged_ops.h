// A backend with memory of its own behind host pointers, so that the suites written for the CPU run
// over it unchanged: every call copies its operands there and the results back.
#pragma once

#include <memory>

#include "kernels/ops.h"

namespace tessera::testing {

// Allocate, CopyToDevice, CopyToHost and MakeLinear pass through: their memory is the device's.
// `metadata`: every call of PagedAttention is told ahead by PlanAttention.
std::unique_ptr<Ops> StageOps(std::unique_ptr<Ops> device, bool metadata);

}  // namespace tessera::testing
