#include "kernels/cpu/simd/simd_avx512.h"
#include "kernels/cpu/simd/table-inl.h"

namespace tessera {

const CpuKernels& Avx512Kernels() {
  static constexpr CpuKernels kTable = MakeKernels<avx512::V>("avx512");
  return kTable;
}

}  // namespace tessera
