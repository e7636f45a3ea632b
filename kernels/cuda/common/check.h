// Every CUDA call goes through these: an error ends the process, saying where and what (ops.h: a
// device that fails is not survived).
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "base/base.h"
#include "base/end_process.h"

namespace tessera {

inline void CheckCuda(cudaError_t error, const char* file, int line, const char* what) {
  if (error == cudaSuccess) return;
  EndProcess(std::string(file) + ":" + std::to_string(line) + ": CUDA error: " + what + ": " +
             cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")" +
             (error == cudaErrorMemoryAllocation
                  ? "; a smaller KV cache or smaller steps leave more for this"
                  : ""));
}

}  // namespace tessera

#define TESSERA_CUDA_CHECK(call) ::tessera::CheckCuda(call, __FILE__, __LINE__, #call)
// After every launch: a bad configuration shows here, a fault in the kernel at a later call.
#define TESSERA_CUDA_CHECK_LAUNCH(kernel) \
  ::tessera::CheckCuda(cudaGetLastError(), __FILE__, __LINE__, "launch of " kernel)
