// Pivots: outlier tokens with massive activations in the residual stream, which receive most
// attention.
//
// The statistic is |h| at a decoder layer's input, before its norm, over the prompt's tokens. It is
// computed separately for every layer, as in RotateKV's code (same authors); AKVQ-VL (arXiv
// 2501.15021) leaves this open. Three published tests:
//   topk          the tokens with the `count` largest max |h| (AKVQ-VL's "15 pivot tokens")
//   topk_entries  the tokens of the `count` largest |h| over tokens and channels. A token may have
//                 several, so there are `count` or fewer tokens (RotateKV's literal rule)
//   threshold     |h| > 100 and > 1000 times the token's median |h| (Sun et al., arXiv 2402.17762).
//                 Their median is over all tokens; ours depends on the token alone. At most the
//                 `count` largest, so that the cost is bounded
// The earlier token wins a tie.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "cache/policy/policy.h"

namespace tessera {

enum class PivotRule { kTopK, kTopKEntries, kThreshold };
constexpr const char* kPivotRules = "topk|topk_entries|threshold";  // in the order of PivotRule

// topk_entries keeps `count` floats per token and layer until the commit.
constexpr int kMaxPivots = 64;

// Returns the statistics that FindPivots reads under this rule.
PolicyNeeds PivotNeeds(PivotRule rule, int count);
// Returns the pivots among the prompt's tokens `kept`, ascending.
std::vector<int32_t> FindPivots(PivotRule rule, int count, absl::Span<const int32_t> kept,
                                const LayerStats& stats);

}  // namespace tessera
