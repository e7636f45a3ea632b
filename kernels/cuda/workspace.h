// Device memory of an op's intermediate results; grows, never shrinks.
#pragma once

#include "kernels/cuda/check.h"

namespace tessera {

class Workspace {
 public:
  Workspace() = default;
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() {
    if (memory_ != nullptr) TESSERA_CUDA_CHECK(cudaFree(memory_));
  }
  // At least `bytes`, 256-byte aligned; the content is unspecified. Earlier pointers die: kernels
  // already launched may still use them, because cudaFree waits for the device.
  void* Get(int64_t bytes) {
    if (bytes > bytes_) {
      if (memory_ != nullptr) TESSERA_CUDA_CHECK(cudaFree(memory_));
      bytes_ = bytes + bytes / 4;
      TESSERA_CUDA_CHECK(cudaMalloc(&memory_, bytes_));
    }
    return memory_;
  }

 private:
  void* memory_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace tessera
