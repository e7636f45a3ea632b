// A sequence's statistics of its prompt, from the steps that compute it until its commit; and,
// where the policy goes on choosing, the attention sums of the tokens that are stored.
//
// Host memory: layers * tokens * (residual_peaks + 1, 1 for attention columns) floats, for
// sequences whose policy asks; low-pass residuals are the model's. Threads: one thread (the
// engine's).
#pragma once

#include <cstdint>
#include <vector>

#include "cache/policy/policy_stats.h"

namespace tessera {

// One number a token and layer, for people: what a policy judged by.
struct TokenScores {
  const char* name = "";                   // "": none
  std::vector<std::vector<float>> layers;  // [layers][prompt tokens]
};

class PromptStats {
 public:
  // Room for what `needs` asks of `tokens` tokens, of which `width` peaks may be asked at most (the
  // hidden size). Does nothing when it is there already.
  void Begin(const PolicyNeeds& needs, int layers, int tokens, int width);
  void Clear();  // gives the memory back

  int tokens() const { return tokens_; }
  int peaks_per_token() const { return peaks_per_token_; }
  // What one token's row says of one layer: peaks_per_token() peaks, and the median where wanted.
  void SetPeaks(int layer, int token, const float* peaks, const float* median);
  // Of all layers, not copied: they must stay until the commit, which follows at once.
  void SetLowPass(const LowPassStats& low_pass);

  // The sums over rows so far, which the next step adds to: [tokens] of one layer.
  absl::Span<float> Columns(int layer) { return absl::MakeSpan(columns_[layer]); }
  // After the commit: the sums of `tokens` stored tokens, those that are new at zero.
  void GrowColumns(int tokens);
  // Of a layer's sums only those at the indices `kept` stay.
  void KeepColumns(int layer, absl::Span<const int32_t> kept);

  std::vector<LayerStats> Layers() const;  // valid until the next change
  // What says who stays: the deviation of K and V from their base, the attention paid to a token,
  // else the largest |h|.
  TokenScores Scores() const;

 private:
  int layers_ = 0, tokens_ = 0, peaks_per_token_ = 0;
  std::vector<float> peaks_;                 // [layers, tokens, peaks_per_token]
  std::vector<float> medians_;               // [layers, tokens]
  LowPassStats low_pass_;                    // of all layers
  std::vector<std::vector<float>> columns_;  // [layers][tokens]
};

}  // namespace tessera
