// Arrays whose memory grows to what a step needs and stays: on the device, and on their way from
// there to the host, which goes on meanwhile.
//
// Ownership: both own their memory. Threads: one.
#pragma once

#include <cstdint>

#include "kernels/ops.h"

namespace tessera {

template <class T>
class Grown {
 public:
  // Room for n on the device, whose values are unspecified.
  T* Reserve(Ops& ops, int64_t n) {
    if (n > capacity_) {
      capacity_ = 2 * n;
      memory_ = ops.Allocate(capacity_ * static_cast<int64_t>(sizeof(T)));
    }
    return get();
  }
  T* get() const { return reinterpret_cast<T*>(memory_.get()); }

 private:
  Buffer memory_;
  int64_t capacity_ = 0;
};

template <class T>
class Fetched {
 public:
  // device [n]: there once a mark that was set after this has been awaited, until the next Begin.
  void Begin(Ops& ops, const T* device, int64_t n) {
    if (n > capacity_) {
      capacity_ = 2 * n;
      memory_ = ops.AllocateStaging(capacity_ * static_cast<int64_t>(sizeof(T)));
    }
    if (n > 0) ops.BeginCopyToHost(memory_.get(), device, n * static_cast<int64_t>(sizeof(T)));
  }
  const T* get() const { return reinterpret_cast<const T*>(memory_.get()); }

 private:
  Buffer memory_;
  int64_t capacity_ = 0;
};

}  // namespace tessera
