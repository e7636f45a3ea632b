// A prompt's low-pass residuals (Ops::LowPassResiduals) on their way from the device to the policy
// that chooses by them.
//
// Megabytes that the device waits for: they are copied once, into memory that it writes by itself,
// and read there. Ownership: owns both ends, which grow to the longest prompt and stay (16 bytes a
// token and layer). Threads: one.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "cache/policy_stats.h"
#include "engine/staging.h"
#include "kernels/ops.h"

namespace tessera {

class KvResiduals {
 public:
  KvResiduals(Ops* ops, Staging* staging) : ops_(ops), staging_(staging) {}

  // `segments` follow one another from the prompt's first token; pages [layers, layer_pages].
  // Answer: [layers, tokens, 4] on the host, until the next call. Waits for the device.
  absl::Span<const float> Measure(const uint8_t* arena, const KvGeometry& geometry,
                                  const std::vector<PageId>& pages,
                                  const std::vector<LowPassSegment>& segments);

 private:
  Ops* ops_;
  Staging* staging_;
  int64_t capacity_ = 0;     // floats
  Buffer device_, fetched_;  // [segments][layers, tokens of the segment, 4]
  std::vector<float> by_layer_;
};

}  // namespace tessera
