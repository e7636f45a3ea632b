// Prompts' low-pass residuals and the tokens' ranks by them (Ops::LowPassResiduals, RankTokens) on
// their way from the device to the policies that choose by them: a few prompts at a time, while the
// device goes on with other work.
//
// Megabytes each: they are copied once, into memory that the device writes by itself, and read
// there. Ownership: owns both ends, which grow to the longest prompts and stay (20 bytes a token
// and layer, kMost times). Threads: one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "cache/policy/policy_stats.h"
#include "engine/transfer/fetched.h"
#include "engine/transfer/staging.h"
#include "kernels/ops.h"

namespace tessera {

class KvResiduals {
 public:
  static constexpr size_t kMost = 8;  // prompts at a time: bounds memory

  KvResiduals(Ops* ops, Staging* staging) : ops_(ops), staging_(staging), prompts_(kMost) {}

  // `segments` follow one another from the prompt's first token to its last; pages [layers,
  // layer_pages]. False, and nothing begun, where kMost are under way.
  bool Begin(const uint8_t* arena, const KvGeometry& geometry, const std::vector<PageId>& pages,
             const PromptView& prompt, const std::vector<LowPassSegment>& segments);
  // Those begun since the last Take, in order, all layers of each; on the host, once a mark that
  // was set after the last Begin has been awaited, until the next Begin.
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
