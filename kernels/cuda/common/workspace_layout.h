// Arrays in one piece of memory, one after the other.
#pragma once

#include <cstdint>

#include "base/base.h"

namespace tessera {

class WorkspaceLayout {
 public:
  // From nullptr it only counts.
  explicit WorkspaceLayout(void* memory) : memory_(static_cast<uint8_t*>(memory)) {}
  // 256-byte aligned, if the memory is.
  template <class T>
  T* Take(int64_t count) {
    uint8_t* at = memory_ == nullptr ? nullptr : memory_ + bytes_;
    bytes_ += CeilDiv<int64_t>(count * sizeof(T), 256) * 256;
    return reinterpret_cast<T*>(at);
  }
  int64_t bytes() const { return bytes_; }

 private:
  uint8_t* memory_;
  int64_t bytes_ = 0;
};

}  // namespace tessera
