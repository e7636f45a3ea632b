// The operations between a row of logits and a token: the part of Ops for sampling.
//
// A step calls EditLogits, then SampleTokens, then Logprobs of the logits as they were before the
// edits. The next step's TakeSampled reads the sampled tokens on the device, so a token need not
// reach the host before the model runs on it. Conventions are those of ops.h.
#pragma once

#include <cstdint>

namespace tessera {

// A bias that is added to a token's logit. A token with -infinity is not sampled while another
// logit is finite.
struct LogitBias {
  int32_t id = 0;
  float bias = 0;
};

// A token for the penalties: how often it occurs in the output, or 0 if only the prompt has it.
struct TokenCount {
  int32_t id = 0;
  int32_t times = 0;
};

// A sparse edit of a row of logits before sampling. First the biases are added. Then each counted
// token is penalised: `repetition` divides a positive logit and multiplies any other (Keskar et al.
// 2019), and a token of the output loses presence + frequency * times. All is float32 with each
// operation rounded. Each list has an id at most once; ids outside the row are ignored.
struct LogitEdit {
  int32_t row = 0;
  int32_t first_bias = 0, biases = 0;   // range in the array of all edits' biases
  int32_t first_count = 0, counts = 0;  // range in the array of all counts
  int32_t awaited = -1;                 // if >= 0: sampled[awaited] counts once more
  float repetition = 1, presence = 0, frequency = 0;

  bool penalises() const { return repetition != 1 || presence != 0 || frequency != 0; }
};

// How to sample a token from a row of logits. Probabilities are softmax(logits / temperature).
// Temperature 0 takes the largest logit, the first of equal ones. The filters apply in this order;
// each keeps a prefix in the order "larger logit, then lower id":
//   top_k  keeps the first top_k tokens (0: all);
//   top_p  keeps the shortest prefix whose renormalised mass reaches top_p (at least one token);
//   min_p  keeps tokens with at least min_p times the probability of the most probable token.
// The kept tokens divide [0, 1) by their share of the mass in the order of ids. The sampled token
// is the one whose interval contains `uniform`.
struct SampleRule {
  float temperature = 0;
  int32_t top_k = 0;
  float top_p = 1, min_p = 0;
  double uniform = 0;  // in [0, 1)
};

// Requests log-probabilities of one row: that of ids[sampled] and those of the `top` most probable
// tokens.
struct LogprobJob {
  int32_t sampled = 0;
  int32_t top = 0;
};
struct LogprobAt {
  int32_t id = -1;  // -1: no further token is possible
  float logprob = 0;
};

class SamplingOps {
 public:
  virtual ~SamplingOps() = default;

  // Applies `n` edits to rows of logits [.., cols]; each edit names another row. `sampled` may be
  // null if no edit has `awaited`.
  virtual void EditLogits(float* logits, int64_t cols, const LogitEdit* edits, int64_t n,
                          const LogitBias* biases, const TokenCount* counts,
                          const int32_t* sampled) = 0;

  // Samples ids[i] from logits[i, :] by rules[i]. Null `rules` means temperature 0 for all rows.
  // NaN counts as -infinity, +infinity as the largest float. Ids with `banned` [cols] not 0 are
  // never sampled. If no other logit is finite, the result is the first id that is not banned, or
  // 0. Backends may differ where a probability lies within rounding of a border.
  virtual void SampleTokens(const float* logits, int64_t rows, int64_t cols, const uint8_t* banned,
                            const SampleRule* rules, int32_t* ids) = 0;

  // Replaces each id below 0 by sampled[-1 - id]; other ids stay.
  virtual void TakeSampled(const int32_t* sampled, int32_t* ids, int64_t rows) = 0;

  // Computes out[i, 0] = (id, log softmax(logits[i, :])[id]) for id = ids[jobs[i].sampled], and
  // out[i, 1 ..] likewise for the most probable tokens: larger logits first, then lower ids,
  // without impossible tokens. logits is [n, cols]. out is [n, width] with 1 + jobs[i].top <=
  // width; entries that a job does not request are unspecified. Sums are in double. NaN and
  // +infinity count as in SampleTokens; a result of -infinity becomes the lowest float.
  virtual void Logprobs(const float* logits, int64_t cols, const LogprobJob* jobs, int64_t n,
                        int64_t width, const int32_t* ids, LogprobAt* out) = 0;
};

}  // namespace tessera
