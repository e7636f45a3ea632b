// The operations between a row of logits and a token: the part of Ops that sampling is made of.
//
// In the order in which a step calls them: EditLogits, SampleTokens, and Logprobs of the logits as
// they were before the edits. The next step's TakeSampled reads the sampled tokens where they are,
// so that no token has to reach the host before it is run. Conventions are those of ops.h.
#pragma once

#include <cstdint>

namespace tessera {

// What is added to a token's logit; -infinity: it is not sampled as long as another logit is
// finite.
struct LogitBias {
  int32_t id = 0;
  float bias = 0;
};

// A token that penalties see: times in the output, or 0 if in the prompt alone.
struct TokenCount {
  int32_t id = 0;
  int32_t times = 0;
};

// How a row of logits is changed before a token is sampled from it. First the biases are added,
// then each counted token is penalised: a positive logit is divided by `repetition`, another
// multiplied (Keskar et al. 2019), and one that is in the output loses presence + frequency *
// times. All in float32, each operation rounded. Both lists name an id at most once; ids outside
// the row are left out.
struct LogitEdit {
  int32_t row = 0;
  int32_t first_bias = 0, biases = 0;   // in the array of all edits' biases
  int32_t first_count = 0, counts = 0;  // and of their counts
  int32_t awaited = -1;                 // >= 0: sampled[awaited] counts once more than it says here
  float repetition = 1, presence = 0, frequency = 0;

  bool penalises() const { return repetition != 1 || presence != 0 || frequency != 0; }
};

// How a token is sampled from a row of logits. Probabilities are softmax(logits / temperature), at
// 0 the largest logit's alone (the first's, where equal). What each filter then keeps, in the order
// "larger logit, then lower id":
//   top_k  the first top_k (0: all);
//   top_p  of those, renormalised, the shortest beginning whose mass reaches top_p (at least one);
//   min_p  of those, all with at least min_p times the probability of the most probable token.
// Drawn is the token in whose share of the rest's mass, in the order of ids, `uniform` falls.
struct SampleRule {
  float temperature = 0;
  int32_t top_k = 0;
  float top_p = 1, min_p = 0;
  double uniform = 0;  // in [0, 1)
};

// Wanted of one row: the log-probability of ids[sampled] and of the `top` most probable tokens.
struct LogprobJob {
  int32_t sampled = 0;
  int32_t top = 0;
};
struct LogprobAt {
  int32_t id = -1;  // -1: there are no more that are possible
  float logprob = 0;
};

class SamplingOps {
 public:
  virtual ~SamplingOps() = default;

  // Changes rows of logits [.., cols] by `n` edits, each of another row. `sampled` may be null
  // where no edit awaits a token.
  virtual void EditLogits(float* logits, int64_t cols, const LogitEdit* edits, int64_t n,
                          const LogitBias* biases, const TokenCount* counts,
                          const int32_t* sampled) = 0;

  // ids[i] = a token sampled from logits[i, :] by rules[i]; `rules` null: of temperature 0, all of
  // them. A NaN counts as -infinity, +infinity as the largest float. Places where `banned` [cols]
  // is not 0 are never sampled; with no finite logit beside them the first other place is, or 0.
  // Where probabilities lie at a border within rounding, backends may differ.
  virtual void SampleTokens(const float* logits, int64_t rows, int64_t cols, const uint8_t* banned,
                            const SampleRule* rules, int32_t* ids) = 0;

  // An id below 0 becomes sampled[-1 - id]; others stay.
  virtual void TakeSampled(const int32_t* sampled, int32_t* ids, int64_t rows) = 0;

  // out[i, 0] = ids[jobs[i].sampled] and log softmax(logits[i, :]) of it, out[i, 1 ..] the most
  // probable tokens, larger logits first, then lower ids, impossible ones left out. logits [n,
  // cols], out [n, places], 1 + jobs[i].top <= places; what a job did not ask for is unspecified.
  // Sums in double; NaN and +infinity as for SampleTokens; -infinity becomes the lowest float.
  virtual void Logprobs(const float* logits, int64_t cols, const LogprobJob* jobs, int64_t n,
                        int64_t places, const int32_t* ids, LogprobAt* out) = 0;
};

}  // namespace tessera
