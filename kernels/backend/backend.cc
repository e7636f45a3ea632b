#include "kernels/backend/backend.h"

#include <sched.h>

#include <algorithm>
#include <thread>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/simd/isa.h"
#include "kernels/cuda/common/device.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/reference/reference.h"

namespace tessera {
namespace {

using Made = absl::StatusOr<std::unique_ptr<Ops>>;

Made MakeReference(const BackendOptions&) { return MakeReferenceOps(); }

// Returns the number of cores that this process may use. std::thread::hardware_concurrency()
// ignores the limits of a container or taskset.
int AvailableCores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

Made MakeCpu(const BackendOptions& options) {
  constexpr int kMaxThreads = 1024;
  if (options.cpu_threads < 0 || options.cpu_threads > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("cpu_threads must be in [0, ", kMaxThreads, "], got ", options.cpu_threads));
  }
  ASSIGN_OR_RETURN(const CpuKernels* kernels, FindKernels(options.cpu_isa));
  int threads = options.cpu_threads;
  if (threads == 0) threads = AvailableCores();
  return MakeCpuOps(*kernels, threads);
}

Made MakeCuda(const BackendOptions& options) {
  MadeCudaOps made = MakeCudaOps(options.precise);
  if (made.ops != nullptr) return std::move(made.ops);
  std::string names;
  for (const CudaDevice& d : FindCudaDevices().devices) {
    absl::StrAppendFormat(&names, " (found %s, compute capability %d.%d, %d MiB)", d.name, d.major,
                          d.minor, d.memory_bytes >> 20);
  }
  return absl::FailedPreconditionError(
      absl::StrCat("no usable CUDA device: ", made.problem, names));
}

// Returns the best backend that is available.
Made MakeAuto(const BackendOptions& options) {
  Made cuda = MakeCuda(options);
  return cuda.ok() ? std::move(cuda) : MakeCpu(options);
}

struct BackendEntry {
  const char* name;
  Made (*make)(const BackendOptions&);
};
constexpr BackendEntry kBackends[] = {
    {"auto", MakeAuto}, {"cpu", MakeCpu}, {"cuda", MakeCuda}, {"reference", MakeReference}};

}  // namespace

absl::StatusOr<std::unique_ptr<Ops>> MakeBackend(absl::string_view device,
                                                 const BackendOptions& options) {
  for (const BackendEntry& entry : kBackends) {
    if (device == entry.name) return entry.make(options);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown device \"", device, "\"; known: ", absl::StrJoin(BackendNames(), ", ")));
}

std::vector<std::string> BackendNames() {
  std::vector<std::string> names;
  for (const BackendEntry& entry : kBackends) names.emplace_back(entry.name);
  return names;
}

std::vector<std::string> CpuInstructionSets() { return AvailableIsas(); }

const char* CpuInstructionSet() { return (*FindKernels(""))->isa; }

}  // namespace tessera
