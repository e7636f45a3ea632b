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
  int cpu_threads = 0;  // 0: one per core that this process may use
  // Instruction set of the CPU backend: "avx512", "avx2", "scalar", or "" for the best this machine
  // has. All give the same bits; naming one is for tests and benchmarks.
  std::string cpu_isa;
  // CUDA: keep float accuracy of activations however many rows there are: in dense layers with
  // 16-bit weights (kernels/cuda/gemm/precision.h) and in attention, which then does without tensor
  // cores. Dense layers keep twice 16 bits anyway while rows are few.
  bool precise = false;
};

// `device`: "cpu" (the practical CPU path), "reference" (scalar truth, for tests), "cuda", or
// "auto" (cuda where a usable GPU exists, else cpu). FAILED_PRECONDITION
// with the reason when the named device or instruction set cannot be had; INVALID_ARGUMENT for
// unknown names and options out of range.
absl::StatusOr<std::unique_ptr<Ops>> MakeBackend(absl::string_view device,
                                                 const BackendOptions& options);

// Names accepted by MakeBackend.
std::vector<std::string> BackendNames();

// "avx512", "avx2" or "scalar": the instruction set the CPU backend runs on this machine.
const char* CpuInstructionSet();

// All values of BackendOptions::cpu_isa that work on this machine, best first.
std::vector<std::string> CpuInstructionSets();

}  // namespace tessera
