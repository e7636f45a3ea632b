// The interface of a statistic: something measured inside the forward pass that KV policies read.
//
// A statistic is one file in this folder plus one line in statistic_table.cc. Its file holds two
// classes. SequenceStatistic keeps the values of one sequence, on the host, until the policy has
// decided. StepStatistic measures one step: it collects the rows to measure while the batch is
// built, launches its kernel at each layer of the decoder, and hands the results to the sequences.
// The engine knows statistics by these interfaces only.
//
// Threads: the engine's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "cache/policy/policy_stats.h"
#include "engine/transfer/staging.h"
#include "kernels/ops.h"

namespace tessera {

// The sizes that every statistic needs of the model.
struct StatisticShape {
  int layers = 0, hidden = 0, heads = 0;
};

// One number a token and layer, for explanations: the score by which a policy ranks tokens.
struct TokenScores {
  const char* name = "";                   // "": none
  std::vector<std::vector<float>> layers;  // [layers][prompt tokens]
};

// The values of one sequence, from the steps that compute its prompt until the commit.
class SequenceStatistic {
 public:
  virtual ~SequenceStatistic() = default;
  // Points `out` at the layer's values, which stay valid until the next change.
  virtual void Describe(int layer, LayerStats* out) const = 0;
  virtual TokenScores Scores() const { return {}; }
  // Says whether the values are needed after the commit as well.
  virtual bool outlives_commit() const { return false; }
  // Keeps the layer's values of the tokens at the indices `kept`, ascending. Called after a commit
  // or an eviction if outlives_commit().
  virtual void Keep(int layer, absl::Span<const int32_t> kept) {}
};

class PromptStatistics;

// The tokens of one sequence that a step computes: rows [first_row, first_row + count) of the
// batch hold its tokens [first_token, first_token + count).
struct StatisticChunk {
  PromptStatistics* statistics = nullptr;  // the sequence's
  const PolicyNeeds* needs = nullptr;
  int sequence = 0;  // index in the batch
  int first_row = 0, first_token = 0, count = 0;
  int prompt_tokens = 0;   // that the policy decides about
  bool committed = false;  // its policy has decided
  int stored_tokens = 0;   // in each layer's cache, these included
};

// When the results of a chunk must be there.
enum class StatisticDue {
  kNever,     // nothing is measured
  kCommit,    // before the policy decides
  kNextStep,  // before the sequence's next step, which goes on from them
};

// The measurements of one step. Two objects of each kind take turns, as two steps are in flight.
class StepStatistic {
 public:
  virtual ~StepStatistic() = default;

  // --- while the batch is built
  virtual void Clear() = 0;  // begins a step
  virtual StatisticDue Add(const StatisticChunk& chunk) = 0;
  virtual bool empty() const = 0;  // nothing is to be measured; the functions below are not called

  // --- around the forward pass
  virtual void Stage(Ops& ops, Staging& staging) = 0;
  // hidden [rows, hidden size]: the residual stream at the layer's input, before the norm.
  virtual void OnLayerInput(Ops& ops, int layer, const float* hidden) {}
  // qkv [rows, (heads + 2 kv heads) * head dim] with RoPE applied; K and V are stored in `kv`.
  virtual void OnAttention(Ops& ops, int layer, const float* qkv, const int32_t* query_begin,
                           const KvLayerView& kv) {}
  virtual void BeginFetch(Ops& ops) = 0;

  // --- after the step's results have come to the host
  // Copies results into the sequences. `find` maps an index in the batch to the sequence's
  // statistics, or to null if the sequence no longer runs.
  virtual void Collect(absl::FunctionRef<PromptStatistics*(int sequence)> find) = 0;
};

}  // namespace tessera
