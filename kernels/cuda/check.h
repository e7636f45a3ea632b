// Every CUDA call goes through these: an error prints where and what, and ends the process (ops.h:
// a device that fails is not survived).
#pragma once

#include <cuda_runtime.h>

#include "kernels/base.h"

namespace tessera {

inline void CheckCuda(cudaError_t error, const char* file, int line, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s:%d: CUDA error: %s: %s (%s)\n", file, line, what,
               cudaGetErrorString(error), cudaGetErrorName(error));
  std::abort();
}

}  // namespace tessera

#define TESSERA_CUDA_CHECK(call) ::tessera::CheckCuda(call, __FILE__, __LINE__, #call)
// After every launch: a bad configuration shows here, a fault in the kernel at a later call.
#define TESSERA_CUDA_CHECK_LAUNCH(kernel) \
  ::tessera::CheckCuda(cudaGetLastError(), __FILE__, __LINE__, "launch of " kernel)
