// The table of backends: the implementations of Ops that this binary has, and how to make one.
//
// Threads: functions only, safe.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/ops.h"

namespace tessera {

struct BackendOptions {
  int cpu_threads = 0;  // 0: one per core that this process may use
  // The CPU backend's instruction set: "avx512", "avx2", "scalar", or "" for the best of this
  // machine. All give the same bits; naming one is for tests and benchmarks.
  std::string cpu_isa;
  // CUDA: keeps float accuracy of activations for any number of rows. It affects dense layers with
  // 16-bit weights (kernels/cuda/gemm/precision.h) and attention, which then uses no tensor cores.
  // Dense layers with few rows split activations into two 16-bit parts in any case.
  bool precise = false;
};

// Makes the backend for `device`: "cpu", "cuda", "reference" (scalar, for tests), or "auto" (cuda
// if a usable GPU exists, else cpu). Returns FAILED_PRECONDITION with the reason when the device or
// instruction set is not available, and INVALID_ARGUMENT for unknown names and options out of
// range.
absl::StatusOr<std::unique_ptr<Ops>> MakeBackend(absl::string_view device,
                                                 const BackendOptions& options);

// Returns the names that MakeBackend accepts.
std::vector<std::string> BackendNames();

// Returns the instruction set that the CPU backend uses on this machine: "avx512", "avx2" or
// "scalar".
const char* CpuInstructionSet();

// Returns all values of BackendOptions::cpu_isa that work on this machine, best first.
std::vector<std::string> CpuInstructionSets();

}  // namespace tessera
