#include "engine/model/step_sampler.h"

#include <iterator>

namespace tessera {

void StepSampler::Ban(const std::vector<int32_t>& ids, int64_t vocab) {
  std::vector<uint8_t> banned(vocab);
  for (const int32_t id : ids) {
    if (id >= 0 && id < vocab) banned[id] = 1;
  }
  vocab_ = vocab;
  banned_ = ops_->Allocate(vocab);
  ops_->CopyToDevice(banned_.get(), banned.data(), vocab);
}

void StepSampler::Stage(const Batch& batch) {
  staged_.rules = batch.sample_rules.empty() ? nullptr : staging_->Add(batch.sample_rules);
  staged_.edits = staging_->Add(batch.edits.rows);
  staged_.biases = staging_->Add(batch.edits.biases);
  staged_.counts = staging_->Add(batch.edits.counts);
  staged_.logprobs = staging_->Add(batch.logprobs);
  std::vector<int32_t> rows;
  for (const LogprobJob& job : batch.logprobs) rows.push_back(job.sampled);
  staged_.logprob_rows = staging_->Add(rows);
}

void StepSampler::Sample(const Batch& batch, float* logits, int turn) {
  const int64_t rows = std::ssize(batch.sampled_rows), jobs = std::ssize(batch.logprobs);
  const int64_t places = batch.logprob_places;
  Turn& out = turns_[turn];
  out.logits.Begin(*ops_, logits + rows * vocab_, std::ssize(batch.logit_rows) * vocab_);
  if (rows == 0) return;

  int32_t* sampled = out.sampled.Reserve(*ops_, rows);
  float* raw = raw_.Reserve(*ops_, jobs * vocab_);
  if (jobs > 0) ops_->GatherRows(logits, staged_.logprob_rows, jobs, vocab_, raw);
  ops_->EditLogits(logits, vocab_, staged_.edits, std::ssize(batch.edits.rows), staged_.biases,
                   staged_.counts, turns_[1 - turn].sampled.get());
  ops_->SampleTokens(logits, rows, vocab_, banned_.get(), staged_.rules, sampled);
  out.tokens.Begin(*ops_, sampled, rows);
  LogprobAt* found = out.found.Reserve(*ops_, jobs * places);
  ops_->Logprobs(raw, vocab_, staged_.logprobs, jobs, places, sampled, found);
  out.logprobs.Begin(*ops_, found, jobs * places);
}

}  // namespace tessera
