#include "kernels/cpu/simd/simd_avx2.h"
#include "kernels/cpu/simd/table-inl.h"

namespace tessera {

const CpuKernels& Avx2Kernels() {
  static constexpr CpuKernels kTable = MakeKernels<avx2::V>("avx2");
  return kTable;
}

}  // namespace tessera
