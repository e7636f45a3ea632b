// A paged cache on the device for benchmarks: layers of sequences that all hold the same runs.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/bench/device.h"

namespace tessera::bench {

// The runs of a sequence as text: FORMAT or FORMAT:TOKENS, joined by '+', oldest first. One has no
// number and takes the rest of the context. "token2+raw16:128" is a 16-bit window of 128 tokens
// after 2-bit pages.
struct CacheLayout {
  struct Run {
    Format format;
    int64_t tokens;  // 0: the rest
  };
  std::string text;
  std::vector<Run> runs;

  static absl::StatusOr<CacheLayout> Parse(const std::string& text);
  // Returns the layout for `context` tokens: every run's tokens are known, and none is empty.
  CacheLayout At(int64_t context) const;
  // Returns the bytes of one sequence in one layer: codes and metadata without padding. REQUIRES:
  // made by At.
  int64_t Bytes(const KvGeometry& geometry) const;
  bool low_bits() const;
  uint32_t formats() const;  // one bit per format
};

// `layers` layers of `batch` sequences over shuffled pages of one arena, with random bits in all
// pages; each sequence has `rows` query rows.
class DeviceCache {
 public:
  // REQUIRES: `layout` is made by At.
  DeviceCache(Device& device, const KvGeometry& geometry, int64_t layers, int64_t batch,
              int64_t rows, const CacheLayout& layout);
  KvLayerView Layer(int64_t layer) const;
  const int32_t* query_begin() const;  // [batch + 1], on the device
  // Returns the slots of the last run's last `rows` tokens of each sequence, where a step stores.
  // REQUIRES: the last run is RAW16.
  const KvSlot* last_slots(int64_t layer) const;

 private:
  KvGeometry geometry_;
  Buffer arena_, pages_, runs_, run_begin_, query_begin_, slots_;
  int64_t pages_per_layer_ = 0, query_rows_ = 0;
};

template <class T>
Buffer Upload(Ops& ops, const std::vector<T>& values) {
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
  Buffer b = ops.Allocate(bytes);
  ops.CopyToDevice(b.get(), values.data(), bytes);
  return b;
}

}  // namespace tessera::bench
