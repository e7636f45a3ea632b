// A backend with its own memory that takes host pointers, so that the suites for the CPU run on it
// unchanged: every call copies its inputs to the device and the results back.
#pragma once

#include <memory>

#include "kernels/ops.h"

namespace tessera::testing {

// Allocate, CopyToDevice, CopyToHost and MakeLinear pass through: their memory is the device's.
// `metadata`: PlanAttention announces every call of PagedAttention.
std::unique_ptr<Ops> StageOps(std::unique_ptr<Ops> device, bool metadata);

}  // namespace tessera::testing
