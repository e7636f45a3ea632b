// Continuous batching: decides which tokens of which sequences run in the next step, who gets
// pages, and who is preempted. Pure host logic: no device, no clock, no gRPC.
//
// Rank is (priority, then age). Decodes come first, so that a long prompt does not stall answers;
// what is left of the token budget goes to prefill chunks, by rank. A sequence is admitted when all
// its known tokens fit beside what running ones still need; if pages run out nevertheless, the
// lowest-ranked running sequence is preempted: it gives back its pages and waits to be recomputed
// (its full blocks stay in the prefix index until their pages are needed).
// A sequence whose policy compresses is committed once the tokens up to its commit point (its whole
// prompt, if nothing else is asked) are computed; what is left of the prompt then runs over the
// compressed pages, in chunks that end where the next tokens leave the window (Compress). Room for
// the new pages is made like any other.
// A step may be planned before the tokens are known that the step before draws (Sequence::awaited).
// Progress: the highest-ranked sequence can always take every page, so it always finishes.
// Threads: one thread (the engine's).
#pragma once

#include <cstdint>
#include <vector>

#include "cache/pages/arena.h"
#include "cache/prefix_cache.h"
#include "engine/runtime/sequence.h"

namespace tessera {

struct SchedulerLimits {
  int max_batch_tokens = 512;  // rows of one step; >= max_sequences
  int max_sequences = 64;      // running at once
};

struct StepPlan {
  struct Item {
    Sequence* sequence = nullptr;
    int first = 0;  // token index; count tokens from here run in this step
    int count = 0;
    bool sample = false;  // the last known token is among them: its logits are wanted
  };
  std::vector<Item> items;
  std::vector<Sequence*> admitted;   // left the queue in this plan
  std::vector<Sequence*> preempted;  // back in the queue
  int rows = 0;
};

// What Compress did to one sequence.
struct Compressed {
  bool committed = false;
  double exited_tokens = 0;  // out of the window, mean over layers
};

// Runs the moves that compression asks for, before it returns.
class TokenMover {
 public:
  virtual ~TokenMover() = default;
  virtual void Move(const std::vector<MoveBatch>& batches) = 0;
};

class Scheduler {
 public:
  Scheduler(const SchedulerLimits& limits, Arena* arena, PrefixCache* prefix)
      : limits_(limits), arena_(arena), prefix_(prefix) {}

  void Add(Sequence* sequence);     // to the queue
  void Remove(Sequence* sequence);  // from anywhere; its pages are released
  // Reserves pages for what it plans. Every planned item must then be run and Completed, unless
  // its sequence is Removed.
  StepPlan Plan();
  // The item's K and V are stored: advances the sequence and offers full blocks to the index.
  void Complete(const StepPlan::Item& item);
  // After Complete, while the sequence runs: commits it once its commit point is computed, then
  // lets tokens leave its window, or the cache. May preempt lower ranks, or the sequence itself,
  // into `preempted`. Exits of many layers and sequences are moved together: FinishMoves must
  // follow.
  Compressed Compress(Sequence* sequence, TokenMover& mover, std::vector<Sequence*>* preempted);
  void FinishMoves(TokenMover& mover);

  int running() const { return static_cast<int>(running_.size()); }
  int waiting() const { return static_cast<int>(waiting_.size()); }

 private:
  // Pages for `tokens` more, reclaiming and preempting lower ranks; false: `sequence` itself must
  // give way.
  bool MakeRoom(Sequence* sequence, int tokens, StepPlan* plan);
  // Frees something for `sequence`: idle prefix pages, else the lowest rank below it.
  bool FreeSome(Sequence* sequence, int64_t pages, StepPlan* plan);
  void Preempt(Sequence* sequence, StepPlan* plan);
  bool TryAdmit(Sequence* sequence);
  void Schedule(Sequence* sequence, int count, StepPlan* plan);

  SchedulerLimits limits_;
  Arena* arena_;
  PrefixCache* prefix_;
  std::vector<Sequence*> waiting_;  // by rank, best first
  std::vector<Sequence*> running_;  // by rank, best first
  std::vector<MoveBatch> moves_;    // not issued yet
  std::vector<Sequence*> moving_;   // whose tokens those are
};

}  // namespace tessera
