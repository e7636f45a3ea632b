#include "kernels/cpu/simd/isa.h"

#include <cpuid.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace tessera {
namespace {

// __builtin_cpu_supports also checks that the operating system saves the registers. Clang 14 does
// not know "f16c" there, so this code reads that bit itself.
bool HasAvx2() {
  constexpr unsigned kF16c = 1u << 29;
  unsigned a, b, c, d;
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & kF16c);
  return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
bool HasAvx512() { return HasAvx2() && __builtin_cpu_supports("avx512f"); }
bool HasScalar() { return true; }

struct IsaEntry {
  const char* name;
  bool (*available)();
  const CpuKernels& (*kernels)();
};
constexpr IsaEntry kIsas[] = {
    // best first
    {"avx512", HasAvx512, Avx512Kernels},
    {"avx2", HasAvx2, Avx2Kernels},
    {"scalar", HasScalar, ScalarKernels},
};

}  // namespace

std::vector<std::string> AvailableIsas() {
  std::vector<std::string> names;
  for (const IsaEntry& e : kIsas) {
    if (e.available()) names.emplace_back(e.name);
  }
  return names;
}

absl::StatusOr<const CpuKernels*> FindKernels(absl::string_view name) {
  for (const IsaEntry& e : kIsas) {
    if (!name.empty() && name != e.name) continue;
    if (e.available()) return &e.kernels();
    if (!name.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("this machine lacks the instruction set \"", name,
                       "\"; it has: ", absl::StrJoin(AvailableIsas(), ", ")));
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown instruction set \"", name, "\"; known: avx512, avx2, scalar"));
}

}  // namespace tessera
