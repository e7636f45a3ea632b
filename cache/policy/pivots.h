// Pivots: the tokens with massive activations in the residual stream, to which most attention goes.
//
// Statistic: |h| at a decoder layer's input, before its norm, over the prompt's tokens, in every
// layer anew; as in RotateKV's code (AKVQ-VL's authors), which AKVQ-VL (arXiv 2501.15021) leaves
// open. Three published tests:
//   topk          the tokens with the `count` largest max |h| (AKVQ-VL's "15 pivot tokens")
//   topk_entries  the tokens of the `count` largest |h| over tokens and channels; a token may have
//                 several, so there are `count` or fewer (RotateKV's literal rule)
//   threshold     |h| > 100 and > 1000 times the median |h| of the token (Sun et al., arXiv
//                 2402.17762, whose median is over all tokens: ours depends on the token alone);
//                 the `count` largest, so that costs have a bound
// Ties go to the earlier token.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "cache/policy/policy.h"

namespace tessera {

enum class PivotRule { kTopK, kTopKEntries, kThreshold };
constexpr const char* kPivotRules = "topk|topk_entries|threshold";  // in the order of PivotRule

// topk_entries holds `count` floats for each token and layer until the commit.
constexpr int kMaxPivots = 64;

PolicyNeeds PivotNeeds(PivotRule rule, int count);
// Some of `kept`, ascending.
std::vector<int32_t> FindPivots(PivotRule rule, int count, absl::Span<const int32_t> kept,
                                const LayerStats& stats);

}  // namespace tessera
