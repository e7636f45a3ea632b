// The instruction sets of this machine, and the kernels for one of them. Threads: functions only,
// safe.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/cpu/simd/kernels.h"

namespace tessera {

// Returns the names of the sets that this machine can run, best first; "scalar" is always included.
std::vector<std::string> AvailableIsas();

// Returns the kernels for `name`, or the best for "". FAILED_PRECONDITION if the machine lacks the
// set, INVALID_ARGUMENT for an unknown name. The table has static storage.
absl::StatusOr<const CpuKernels*> FindKernels(absl::string_view name);

}  // namespace tessera
