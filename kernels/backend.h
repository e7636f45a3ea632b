// The table of backends: which implementations of Ops this binary has, and which one to use.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/ops.h"

namespace tessera {

struct BackendOptions {
  int cpu_threads = 0;  // 0: one per available core
};

// `device`: "cpu" (the practical CPU path), "reference" (scalar truth, for tests), "cuda", or
// "auto" (cuda where a usable GPU and a complete CUDA backend exist, else cpu). FAILED_PRECONDITION
// with the reason when the named device cannot be had.
absl::StatusOr<std::unique_ptr<Ops>> MakeBackend(absl::string_view device,
                                                 const BackendOptions& options);

// Names accepted by MakeBackend.
std::vector<std::string> BackendNames();

// "avx512", "avx2" or "scalar": the instruction set the CPU backend runs on this machine.
const char* CpuInstructionSet();

}  // namespace tessera
