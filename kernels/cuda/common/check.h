// Checks every CUDA call. An error ends the process and says where and what (ops.h: the backend
// does not survive a failing device).
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "base/base.h"
#include "base/end_process.h"

namespace tessera {

inline void CheckCuda(cudaError_t error, const char* file, int line, const char* what) {
  if (error == cudaSuccess) return;
  EndProcess(
      std::string(file) + ":" + std::to_string(line) + ": CUDA error: " + what + ": " +
      cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")" +
      (error == cudaErrorMemoryAllocation ? "; use a smaller KV cache or smaller steps" : ""));
}

}  // namespace tessera

#define TESSERA_CUDA_CHECK(call) ::tessera::CheckCuda(call, __FILE__, __LINE__, #call)
// Checks a launch. It reports a bad configuration; a fault inside the kernel appears at a later
// call.
#define TESSERA_CUDA_CHECK_LAUNCH(kernel) \
  ::tessera::CheckCuda(cudaGetLastError(), __FILE__, __LINE__, "launch of " kernel)
