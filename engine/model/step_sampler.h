// From a step's logits to its tokens, on the device: edits, draws and log-probabilities
// (kernels/sampling_ops.h), of which the host gets the results alone.
//
// Two steps may be under way; their `turn`, 0 or 1, tells them apart. Ownership: owns its arrays,
// which grow to what a step needs and stay. Threads: one.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model/batch.h"
#include "engine/transfer/fetched.h"
#include "engine/transfer/staging.h"
#include "kernels/ops.h"

namespace tessera {

class StepSampler {
 public:
  StepSampler(Ops* ops, Staging* staging) : ops_(ops), staging_(staging) {}

  // Ids that no row gives, from now on. Logits have `vocab` columns.
  void Ban(const std::vector<int32_t>& ids, int64_t vocab);
  // Stages what the batch asks of its logits.
  void Stage(const Batch& batch);
  // logits [sampled_rows + logit_rows, vocab] of the staged batch, on the device; they are changed.
  void Sample(const Batch& batch, float* logits, int turn);

  // The turn's last results: sampled tokens on the device, and on the host, once a mark set after
  // Sample has been awaited, what Answers has of them (llava.h).
  const int32_t* sampled(int turn) const { return turns_[turn].sampled.get(); }
  const int32_t* tokens(int turn) const { return turns_[turn].tokens.get(); }
  const LogprobAt* logprobs(int turn) const { return turns_[turn].logprobs.get(); }
  const float* logits(int turn) const { return turns_[turn].logits.get(); }

 private:
  struct Turn {
    Grown<int32_t> sampled;
    Fetched<int32_t> tokens;
    Grown<LogprobAt> found;
    Fetched<LogprobAt> logprobs;
    Fetched<float> logits;
  };
  struct Staged {
    const SampleRule* rules = nullptr;  // null: none
    const LogitEdit* edits = nullptr;
    const LogitBias* biases = nullptr;
    const TokenCount* counts = nullptr;
    const LogprobJob* logprobs = nullptr;
    const int32_t* logprob_rows = nullptr;  // of the sampled ones
  };

  Ops* ops_;
  Staging* staging_;
  int64_t vocab_ = 0;
  Buffer banned_;  // [vocab]
  Staged staged_;
  Grown<float> raw_;  // [logprobs, vocab]: logits before their edits
  Turn turns_[2];
};

}  // namespace tessera
