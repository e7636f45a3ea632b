// What a request's sampling parameters ask of a row of logits: the backend edits it and draws from
// it (kernels/sampling_ops.h), so that no logit comes to the host.
//
// Order, as transformers has it: logprobs are of the raw distribution; then the logit biases,
// repetition, presence and frequency penalties (LogitEdit), temperature, top-k, top-p, min-p, draw
// (SampleRule). Greedy (temperature 0) takes the largest logit after penalties.
//
// Reproducible: the draw depends only on the logits and on (seed, index of the output token), never
// on batching or on what was sampled before. Without a seed one is made from the request id at
// submission. Never out of range, whatever the logits are: SampleTokens says what is sampled where
// none is finite. Threads: one thread (the engine's).
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "engine/request/request.h"
#include "kernels/sampling_ops.h"

namespace tessera {

// A step's edits and the arrays that they share.
struct LogitEdits {
  std::vector<LogitEdit> rows;
  std::vector<LogitBias> biases;
  std::vector<TokenCount> counts;
};

class Sampler {
 public:
  // `params` must have passed Validate. `ends`: ids that AddEdit can ban.
  Sampler(const SamplingParams& params, uint64_t seed, const std::vector<int32_t>& ends);

  // Tokens that penalties look at: repetition sees prompt and output, the others the output only.
  void AddPromptToken(int32_t id);
  void AddOutputToken(int32_t id);

  // What is done to row `row` before a token is sampled from it, added to `out` if it is anything.
  // `awaited`: where the token before that one is in what the last step draws, or -1 if it was
  // added.
  void AddEdit(int row, bool ban_ends, int awaited, LogitEdits* out) const;
  SampleRule RuleAt(int index) const;

 private:
  SamplingParams params_;
  uint64_t seed_;
  LogitEdit edit_;  // the penalties
  std::vector<LogitBias> biases_, biases_and_ends_;
  // Of prompt and output; both stay empty without penalties.
  std::vector<TokenCount> counts_;
  std::unordered_map<int32_t, int> place_;  // in counts_
};

// The number in [0, 1) that output token `index` is sampled by: a counter-based generator.
double UniformSample(uint64_t seed, uint64_t index);

}  // namespace tessera
