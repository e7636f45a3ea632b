#include <cuda_runtime.h>

#include "kernels/cuda/common/device.h"

namespace tessera {

CudaDevices FindCudaDevices() {
  CudaDevices found;
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  for (int i = 0; i < count && error == cudaSuccess; ++i) {
    cudaDeviceProp properties;
    error = cudaGetDeviceProperties(&properties, i);
    if (error != cudaSuccess) break;
    CudaDevice device;
    device.name = properties.name;
    device.major = properties.major;
    device.minor = properties.minor;
    device.memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
    found.devices.push_back(device);
  }
  if (found.devices.empty()) {
    found.problem = error == cudaSuccess ? "no CUDA device" : cudaGetErrorString(error);
  }
  return found;
}

}  // namespace tessera
