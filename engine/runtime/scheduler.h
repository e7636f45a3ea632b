// Continuous batching with chunked prefill: decides which tokens of which sequences run in the next
// step, and which sequence is preempted. Pure host logic: no device, no clock, no policy.
//
// Rank is (priority, then age). Decodes are scheduled first, so that a long prompt does not stall
// answers; the rest of the token budget goes to prefill chunks, by rank. A sequence is admitted
// when all its known tokens fit next to those that running sequences still need. If pages run out
// nevertheless, the lowest-ranked running sequence is preempted: it gives its pages back and waits
// to be recomputed. Its full blocks stay in the prefix cache until their pages are needed.
// Asynchronous scheduling: a step may be scheduled before the tokens of the step before are known
// (Sequence::pending_sample).
// Progress: the highest-ranked sequence can take every page, so it always finishes.
// Threads: the engine's thread.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/runtime/kv_cache_manager.h"
#include "engine/runtime/sequence.h"

namespace tessera {

struct SchedulerLimits {
  int max_batch_tokens = 512;  // rows of one step; >= max_sequences
  int max_sequences = 64;      // running at once
};

struct SchedulerOutput {
  // Tokens [first, first + count) of the sequence run in this step.
  struct Item {
    Sequence* sequence = nullptr;
    int first = 0;
    int count = 0;
    bool sample = false;  // the last known token is among them: the next one is sampled
  };
  std::vector<Item> items;
  std::vector<Sequence*> admitted;   // left the queue
  std::vector<Sequence*> preempted;  // went back to the queue
  int rows = 0;                      // tokens of all items
};

class Scheduler {
 public:
  Scheduler(const SchedulerLimits& limits, KvCacheManager* cache)
      : limits_(limits), cache_(cache) {}

  void Add(Sequence* sequence);     // to the queue
  void Remove(Sequence* sequence);  // from anywhere; frees its pages
  // Reserves pages for everything that it schedules. Every item must then be run and handed to
  // Advance, unless its sequence is removed.
  SchedulerOutput Schedule();
  // Records that the item's K and V are stored, or will be before anything that is queued on the
  // device from now on.
  void Advance(const SchedulerOutput::Item& item);
  // Frees pages for a running sequence: evicts unreferenced prefix blocks, else preempts the lowest
  // rank below it into `preempted`. Returns false if there is nothing left to free.
  bool FreePagesFor(Sequence* sequence, std::vector<Sequence*>* preempted);
  // Takes the pages of a running sequence; it waits to be recomputed.
  void Preempt(Sequence* sequence);

  int running() const { return static_cast<int>(running_.size()); }
  int waiting() const { return static_cast<int>(waiting_.size()); }

 private:
  void ScheduleRunning(bool decodes, SchedulerOutput* out);
  void ScheduleWaiting(SchedulerOutput* out);
  // Appends the sequence's next `count` tokens, or preempts it if it gets no pages even after lower
  // ranks gave theirs.
  void ScheduleItem(Sequence* sequence, int count, SchedulerOutput* out);
  bool TryAdmit(Sequence* sequence);
  void PreemptInto(Sequence* sequence, SchedulerOutput* out);

  SchedulerLimits limits_;
  KvCacheManager* cache_;
  std::vector<Sequence*> waiting_;  // by rank, best first
  std::vector<Sequence*> running_;  // by rank, best first
};

}  // namespace tessera
