// Device memory of an op's intermediate results; grows, never shrinks.
#pragma once

#include <vector>

#include "kernels/cuda/common/check.h"

namespace tessera {

class Workspace {
 public:
  // For kernels of `stream`.
  explicit Workspace(cudaStream_t stream) : stream_(stream) {}
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() {
    FreeOutgrown();
    if (memory_ != nullptr) TESSERA_CUDA_CHECK(cudaFree(memory_));
  }
  // At least `bytes`, 256-byte aligned; the content is unspecified. Earlier pointers die: kernels
  // already launched, or recorded for a graph, may still use them.
  void* Get(int64_t bytes) {
    if (bytes > bytes_) {
      if (memory_ != nullptr) outgrown_.push_back(memory_);
      // cudaFree waits for what was launched, but knows nothing of what is recorded.
      cudaStreamCaptureStatus status;
      TESSERA_CUDA_CHECK(cudaStreamIsCapturing(stream_, &status));
      if (status == cudaStreamCaptureStatusNone) FreeOutgrown();
      bytes_ = bytes + bytes / 4;
      TESSERA_CUDA_CHECK(cudaMalloc(&memory_, bytes_));
    }
    return memory_;
  }

 private:
  void FreeOutgrown() {
    for (void* memory : outgrown_) TESSERA_CUDA_CHECK(cudaFree(memory));
    outgrown_.clear();
  }

  cudaStream_t stream_;
  void* memory_ = nullptr;
  int64_t bytes_ = 0;
  std::vector<void*> outgrown_;  // while a graph was recorded
};

}  // namespace tessera
