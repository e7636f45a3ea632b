// A bump allocator that lays out several arrays in one piece of memory.
//
// Usage: first lay the arrays out from nullptr to measure them, then again from memory of bytes().
// Threads: plain value; owns nothing.
#pragma once

#include <cstdint>

#include "base/base.h"

namespace tessera {

class WorkspaceLayout {
 public:
  // Lays out from `memory`; with nullptr it only measures.
  explicit WorkspaceLayout(void* memory) : memory_(static_cast<uint8_t*>(memory)) {}
  // Returns an array of `count` elements, aligned to 256 bytes if the memory is.
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
