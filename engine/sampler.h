// Logits -> the next token, and its log-probabilities.
//
// Order, as transformers has it: logprobs are of the raw distribution; then the logit biases,
// repetition, presence and frequency penalties, temperature, top-k, top-p, min-p, draw (DrawRule).
// Greedy (temperature 0) takes the largest logit after penalties.
// Penalties: repetition divides positive logits and multiplies negative ones (Keskar et al. 2019);
// presence is subtracted once, frequency once per occurrence.
//
// Reproducible: the draw depends only on the logits and on (seed, index of the output token), never
// on batching or on what was drawn before. Without a seed one is made from the request id at
// submission. Probabilities are computed in double.
// Never out of range: a NaN logit counts as -infinity, +infinity as the largest float; with no
// finite logit at all the lowest id that is not banned is taken, or 0 when all are. Threads: one
// thread (the engine's).
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "absl/types/span.h"
#include "engine/request.h"
#include "kernels/ops.h"

namespace tessera {

class Sampler {
 public:
  // `params` must have passed Validate. `banned`: ids that are never drawn (ids without text, image
  // token, padding); ids outside the vocabulary are ignored. Must outlive.
  Sampler(const SamplingParams& params, uint64_t seed, const std::vector<int32_t>* banned);

  // Tokens that penalties look at: repetition sees prompt and output, the others the output only.
  void AddPromptToken(int32_t id);
  void AddOutputToken(int32_t id);

  // Sample only draws, by RuleAt(index), from the ids that are not banned: no biases, no penalties.
  bool only_draws() const { return !penalties_ && params_.logit_bias.empty(); }
  DrawRule RuleAt(int index) const;
  // logits [vocab], not empty, is changed in place. `also_banned`: ids not allowed at this step
  // (end of sequence before min_tokens). Ties go to the lowest id.
  int32_t Sample(absl::Span<float> logits, absl::Span<const int32_t> also_banned, int index);

 private:
  void ApplyPenalties(absl::Span<float> logits) const;

  SamplingParams params_;
  uint64_t seed_;
  const std::vector<int32_t>* banned_;
  bool penalties_;                           // else counts_ stays empty
  std::unordered_map<int32_t, int> counts_;  // tokens of prompt and output: times in the output
};

// The number in [0, 1) that Sampler draws for output token `index`: a counter-based generator.
double UniformDraw(uint64_t seed, uint64_t index);

// log softmax of `logits` at `id`, with the `top` largest as candidates (by logit, then lowest id;
// impossible ones are left out). Computed in double; -infinity becomes the lowest float.
TokenLogprob ComputeLogprob(absl::Span<const float> logits, int32_t id, int top);

}  // namespace tessera
