// Device memory for an op's intermediate results. It grows and never shrinks. Threads: one thread.
// Errors: CHECK.
#pragma once

#include <vector>

#include "kernels/cuda/common/check.h"

namespace tessera {

class Workspace {
 public:
  // Serves kernels of `stream`.
  explicit Workspace(cudaStream_t stream) : stream_(stream) {}
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() {
    FreeOutgrown();
    if (memory_ != nullptr) TESSERA_CUDA_CHECK(cudaFree(memory_));
  }
  // Returns at least `bytes` bytes, aligned to 256, with unspecified content. Pointers from earlier
  // calls become invalid for new kernels; kernels that are already launched, or captured in a
  // graph, may still use them.
  void* Get(int64_t bytes) {
    if (bytes > bytes_) {
      if (memory_ != nullptr) outgrown_.push_back(memory_);
      // cudaFree waits for launched kernels, but does not know about captured ones.
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
  std::vector<void*> outgrown_;  // outgrown while a graph was captured
};

}  // namespace tessera
