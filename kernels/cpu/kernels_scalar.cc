#include "kernels/cpu/simd_scalar.h"
#include "kernels/cpu/table-inl.h"

namespace tessera {

const CpuKernels& ScalarKernels() {
  static constexpr CpuKernels kTable = MakeKernels<scalar::V>("scalar");
  return kTable;
}

}  // namespace tessera
