// What KV policies may read of the forward pass over a prompt: what they ask for, and what they
// get.
//
// The engine computes only what is asked for, keeps it until the commit (attention_steps: to the
// end), and computes it again after a preemption. Sources: policies/. Threads: plain values.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/statistics_ops.h"

namespace tessera {

struct PromptView {
  // [prompt tokens]; not 0: part of an image. Images side by side have different values.
  absl::Span<const uint8_t> vision;
  int tokens() const { return static_cast<int>(vision.size()); }
};

// What a method reads of the forward pass over the prompt; nothing else is computed.
struct PolicyNeeds {
  // So many of the largest |h| of each token at each layer's input, before the norm (the residual
  // stream), and the median of |h|.
  int residual_peaks = 0;
  bool residual_medians = false;
  // K and V against their low-frequency part: coefficients up to gamma times the segment's tokens.
  bool low_pass = false;
  double gamma = 0;
  bool low_pass_by_image = false;  // a segment for each image and each text between, else one

  // Attention weights of so many last tokens' query rows, summed over rows and heads.
  int attention_rows = 0;
  // And of every row that follows the commit, added to the sums of the tokens that are stored.
  bool attention_steps = false;

  bool any() const { return residual_peaks > 0 || low_pass || attention_rows > 0; }
  std::vector<LowPassSegment> Segments(const PromptView& prompt) const;
  // Tokens from here on must be run, and not found in the prefix index, to have their statistics.
  int FirstToRun(const PromptView& prompt) const {
    return residual_peaks > 0 ? 0 : std::max(0, prompt.tokens() - attention_rows);
  }
};

// K and V against their low-frequency part: of one layer, or of all, one after the other.
struct LowPassStats {
  absl::Span<const float> residuals;  // [prompt tokens, 4], as Ops::LowPassResiduals
  // As Ops::RankTokens, so that a selector need not read the residuals, which are megabytes.
  absl::Span<const int32_t> ranks;  // [prompt tokens]
  absl::Span<const double> sums;    // [text 0, images 1][4]
};

// One layer's answers to PolicyNeeds; empty where not needed.
struct LayerStats {
  int peaks_per_token = 0;          // residual_peaks, or the hidden size if that is less
  absl::Span<const float> peaks;    // [prompt tokens, peaks_per_token], descending
  absl::Span<const float> medians;  // [prompt tokens]
  LowPassStats low_pass;
  absl::Span<const float> columns;  // [prompt tokens], as Ops::AttentionColumns
};

}  // namespace tessera
