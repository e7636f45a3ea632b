// Which instruction sets this machine has, and the kernels for one.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/cpu/simd/kernels.h"

namespace tessera {

// Names of the sets this machine can run, best first; "scalar" is always among them.
std::vector<std::string> AvailableIsas();

// `name` as above, or "" for the best. FAILED_PRECONDITION where the machine lacks it,
// INVALID_ARGUMENT for an unknown name. The table lives for ever.
absl::StatusOr<const CpuKernels*> FindKernels(absl::string_view name);

}  // namespace tessera
