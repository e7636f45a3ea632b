#include "kernels/cpu/simd/simd_scalar.h"
#include "kernels/cpu/simd/table-inl.h"

namespace tessera {

const CpuKernels& ScalarKernels() {
  static constexpr CpuKernels kTable = MakeKernels<scalar::V>("scalar");
  return kTable;
}

}  // namespace tessera
