// The CUDA devices of this host, seen without any CUDA type: callers need neither toolkit nor GPU.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tessera {

struct CudaDevice {
  std::string name;
  int major = 0, minor = 0;  // compute capability
  int64_t memory_bytes = 0;
};

// What was found. `problem` says why `devices` is empty ("built without CUDA", the runtime's
// message for a missing driver, no device) and is empty otherwise. Threads: safe.
struct CudaDevices {
  std::vector<CudaDevice> devices;
  std::string problem;
};
CudaDevices FindCudaDevices();

}  // namespace tessera
