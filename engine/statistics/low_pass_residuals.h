// How far the K and V of each token lie from their low-frequency part, and the tokens' ranks by
// that deviation.
//
// Read by policies with PolicyNeeds::low_pass (FlashCache). Unlike the other statistics it is
// measured over the stored pages of a whole prompt, after the step that completes the prompt: the
// device measures while it goes on with the next step. Megabytes a prompt, so the device writes the
// numbers once, into pinned host memory, and the policy reads them there. Threads: the engine's
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "cache/policy/policy_stats.h"
#include "engine/statistics/statistic.h"
#include "engine/statistics/statistic_table.h"
#include "engine/transfer/fetched.h"
#include "engine/transfer/staging.h"
#include "kernels/ops.h"

namespace tessera {

class LowPassResiduals final : public SequenceStatistic {
 public:
  LowPassResiduals(const StatisticShape& shape, int tokens)
      : layers_(shape.layers), tokens_(tokens) {}
  void Describe(int layer, LayerStats* out) const override;
  TokenScores Scores() const override;

  // The values of all layers. They are not copied and must stay until the commit.
  void Set(const LowPassStats& values);

 private:
  int layers_, tokens_;
  LowPassStats values_;
};

extern const StatisticEntry kLowPassResiduals;

// Measures prompts on the device (Ops::LowPassResiduals, Ops::RankTokens) and brings the numbers to
// the host, a few prompts at a time.
//
// Ownership: owns the device and host memory, 20 bytes a token and layer for each of kMost prompts;
// it grows to the longest prompts and stays.
class LowPassMeasurement {
 public:
  static constexpr size_t kMost = 8;  // prompts at a time: bounds memory

  LowPassMeasurement(Ops* ops, Staging* staging) : ops_(ops), staging_(staging), prompts_(kMost) {}

  // Launches the measurement of one prompt. `segments` cover the prompt from its first token to its
  // last; pages [layers, pages a layer]. Returns false, and launches nothing, if kMost are under
  // way.
  bool Begin(const uint8_t* arena, const KvGeometry& geometry, const std::vector<PageId>& pages,
             const PromptView& prompt, const std::vector<LowPassSegment>& segments);
  // Returns the prompts begun since the last Take, in order. REQUIRES: an event recorded after the
  // last Begin has been waited for. Valid until the next Begin.
  std::vector<LowPassStats> Take();

 private:
  struct Prompt {
    int64_t layers = 0, tokens = 0;
    Grown<uint8_t> device;
    Fetched<uint8_t> fetched;
  };

  Ops* ops_;
  Staging* staging_;
  std::vector<Prompt> prompts_;  // [kMost]
  size_t begun_ = 0;
};

}  // namespace tessera
