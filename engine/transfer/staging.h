// The way of a step's small arrays to the device: packed into memory that the device reads by
// itself, so that one copy takes many of them and no copy keeps the host waiting.
//
// Two sets of blocks take turns: while the device still reads what one step has staged, the next
// step fills the other. Marks of the Ops tell when a set may be filled again. Ownership: owns its
// blocks, which grow to what a step needs and stay. Threads: one.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/ops.h"

namespace tessera {

class Staging {
 public:
  // Uses the marks `first_event` and first_event + 1.
  Staging(Ops* ops, int first_event) : ops_(ops), first_mark_(first_event) {}

  // Begins a step: what the step before the last has staged is gone, once the device has come to
  // the end of that step, for which this waits.
  void Begin();

  // Returns the device address of `values` (64-byte aligned). It is valid from the call of Upload
  // until the step after the next begins.
  template <class T>
  T* Add(const std::vector<T>& values) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
    const Place place = Reserve(bytes);
    if (bytes > 0) std::memcpy(place.host, values.data(), bytes);
    return reinterpret_cast<T*>(place.device);
  }
  // Room for the caller to fill before Upload, as Add does.
  struct Place {
    uint8_t* host;
    uint8_t* device;
  };
  Place Reserve(int64_t bytes);
  // Sends what was added since the last call.
  void Upload();

 private:
  struct Block {
    Buffer host, device;
    int64_t bytes = 0, used = 0, sent = 0;
  };
  Ops* ops_;
  std::vector<Block> blocks_[2];
  const int first_mark_;
  int turn_ = 0;
};

}  // namespace tessera
