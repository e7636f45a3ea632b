// Logits -> the next token, and its log-probabilities.
//
// Order, as vLLM and transformers have it: logprobs are of the raw distribution; then repetition,
// presence and frequency penalties, temperature, top-k, top-p, min-p, draw. Reproducible: the draw
// depends only on (seed, index of the output token), never on batching. Without a seed one is made
// from the request id at submission.
// Threads: one thread (the engine's).
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "absl/types/span.h"
#include "engine/request.h"

namespace tessera {

class Sampler {
 public:
  // `banned`: ids that are never drawn (ids without text, image token, padding). Must outlive.
  Sampler(const SamplingParams& params, uint64_t seed, const std::vector<int32_t>* banned);

  // Tokens that penalties look at: repetition sees prompt and output, the others the output only.
  void AddPromptToken(int32_t id);
  void AddOutputToken(int32_t id);

  // logits [vocab] is changed in place. `also_banned`: ids not allowed at this step (end of
  // sequence before min_tokens). Greedy ties go to the lowest id.
  int32_t Sample(absl::Span<float> logits, absl::Span<const int32_t> also_banned, int index);

 private:
  SamplingParams params_;
  uint64_t seed_;
  const std::vector<int32_t>* banned_;
  struct Counts {
    int output = 0;
    bool in_prompt = false;
  };
  std::unordered_map<int32_t, Counts> counts_;
};

// log softmax of `logits` at `id`, with the `top` largest as candidates (by logit, then lowest id).
TokenLogprob ComputeLogprob(absl::Span<const float> logits, int32_t id, int top);

}  // namespace tessera
