// Turns a request's sampling parameters into sparse logit edits and a sampling rule.
//
// The backend applies both to a row of logits (kernels/sampling_ops.h), so no logit comes to the
// host. The order is that of transformers:
//   1. log-probabilities, of the raw distribution
//   2. logit biases, then repetition, presence and frequency penalties (LogitEdit)
//   3. temperature, top-k, top-p, min-p, and the random choice (SampleRule)
// Temperature 0 is greedy: the largest logit after the penalties.
//
// Reproducible: the choice depends only on the logits, the seed and the index of the output token.
// Batching and earlier tokens do not matter. The caller makes a seed if the request has none.
// Threads: one (the engine's).
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "engine/request/request.h"
#include "kernels/sampling_ops.h"

namespace tessera {

// The sparse logit edits of one step, and the arrays that they share.
struct LogitEdits {
  std::vector<LogitEdit> rows;
  std::vector<LogitBias> biases;
  std::vector<TokenCount> counts;
};

class Sampler {
 public:
  // `stop_ids`: the ids that AddEdit can ban. REQUIRES: Validate has accepted `params`.
  Sampler(const SamplingParams& params, uint64_t seed, const std::vector<int32_t>& stop_ids);

  // Counts a token for the penalties. The repetition penalty applies to tokens of the prompt and
  // the output, the other two to tokens of the output.
  void AddPromptToken(int32_t id);
  void AddOutputToken(int32_t id);

  // Appends the edit of row `row` to `out`, unless the request needs none. `ban_stop_ids`: the stop
  // ids cannot be sampled (min_tokens). `pending_sample`: the index of the newest output token
  // among the samples of the step in flight, or -1 if AddOutputToken has counted it.
  void AddEdit(int row, bool ban_stop_ids, int pending_sample, LogitEdits* out) const;
  // Returns how output token `index` is sampled.
  SampleRule RuleAt(int index) const;

 private:
  SamplingParams params_;
  uint64_t seed_;
  LogitEdit edit_;                           // the penalties
  std::vector<LogitBias> biases_;            // the request's
  std::vector<LogitBias> biases_and_stops_;  // the same, with the stop ids banned
  // The tokens of prompt and output; empty without penalties.
  std::vector<TokenCount> counts_;
  std::unordered_map<int32_t, int> index_of_;  // id -> index in counts_
};

// Returns the number in [0, 1) by which output token `index` is sampled (counter-based generator).
double UniformSample(uint64_t seed, uint64_t index);

}  // namespace tessera
