// Statistics of the forward pass over a prompt that KV policies may read: the request (PolicyNeeds)
// and the result (LayerStats).
//
// The engine computes only what is requested. It keeps the statistics until the commit
// (attention_steps: until the request ends) and computes them again after a preemption. The sources
// are named in policies/. Threads: plain values.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/statistics_ops.h"

namespace tessera {

struct PromptView {
  // [prompt tokens]: 0 for text, not 0 for a token of an image. Two images that touch have
  // different values.
  absl::Span<const uint8_t> vision;
  int tokens() const { return static_cast<int>(vision.size()); }
};

// The statistics that a method requests. Nothing else is computed.
struct PolicyNeeds {
  // The number of largest |h| of each token at each layer's input, before the norm (the residual
  // stream), and whether the median of |h| is needed.
  int residual_peaks = 0;
  bool residual_medians = false;
  // The distance of K and V from their low-pass base: the DCT coefficients up to gamma times the
  // segment's tokens.
  bool low_pass = false;
  double gamma = 0;
  bool low_pass_by_image = false;  // one segment per image and per text between images, else one

  // The number of last prompt tokens whose query rows' attention weights are summed, over rows and
  // heads. SnapKV calls these rows the observation window.
  int attention_rows = 0;
  // Whether the weights of every row after the commit are added to the sums of the stored tokens.
  bool attention_steps = false;

  bool any() const { return residual_peaks > 0 || low_pass || attention_rows > 0; }
  std::vector<LowPassSegment> Segments(const PromptView& prompt) const;
  // Returns the first token whose statistics are needed. It and all later ones must be computed,
  // even if the prefix cache has their pages.
  int FirstToRun(const PromptView& prompt) const {
    return residual_peaks > 0 ? 0 : std::max(0, prompt.tokens() - attention_rows);
  }
};

// The distance of K and V from their low-pass base, for one layer, or for all layers one after the
// other.
struct LowPassStats {
  absl::Span<const float> residuals;  // [prompt tokens, 4], see Ops::LowPassResiduals
  // See Ops::RankTokens. With ranks a selector need not read the residuals, which take megabytes.
  absl::Span<const int32_t> ranks;  // [prompt tokens]
  absl::Span<const double> sums;    // [text 0, images 1][4]
};

// One layer's statistics; a span is empty where it was not requested.
struct LayerStats {
  int peaks_per_token = 0;          // min(residual_peaks, hidden size)
  absl::Span<const float> peaks;    // [prompt tokens, peaks_per_token], descending
  absl::Span<const float> medians;  // [prompt tokens]
  LowPassStats low_pass;
  absl::Span<const float> columns;  // [prompt tokens], see Ops::AttentionColumns
};

}  // namespace tessera
