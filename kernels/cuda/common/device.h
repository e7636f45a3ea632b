// Lists the CUDA devices of this host without CUDA types: callers need neither toolkit nor GPU.
// Threads: safe.
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

// The devices found. If there are none, `problem` has the reason ("built without CUDA", the
// runtime's message for a missing driver, no device); otherwise it is empty.
struct CudaDevices {
  std::vector<CudaDevice> devices;
  std::string problem;
};
CudaDevices FindCudaDevices();

}  // namespace tessera
