// Runs KV policies: commits, window exits and evictions of running sequences.
//
// A sequence whose policy compresses is committed once the tokens up to its commit point are
// computed: the policy selects tokens and formats, and they move into new pages. Later, tokens
// leave the 16-bit window, or, under a policy that bounds the cache, leave for good. New pages need
// room like any other; the scheduler frees it. Moves are launched in the order in which pages are
// freed and reused, so the device, which works in that order too, reads every page before it is
// overwritten. Threads: the engine's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "cache/sequence_cache.h"
#include "engine/request/observer.h"
#include "engine/runtime/scheduler.h"
#include "engine/runtime/sequence.h"

namespace tessera {

class Compressor {
 public:
  // `move` launches moves on the device; the order of calls is the order of execution.
  using Move = std::function<void(const std::vector<MoveBatch>& batches)>;
  Compressor(Scheduler* scheduler, const KvGeometry& geometry, Move move)
      : scheduler_(scheduler), geometry_(geometry), move_(std::move(move)) {}

  struct Result {
    CompressReport report;
    std::vector<Sequence*> preempted;  // to make room, possibly a compressed sequence itself
  };
  // Does what is due for each of the sequences: a commit, an eviction, or window exits. All moves
  // are launched on return.
  Result Compress(const std::vector<Sequence*>& sequences);

 private:
  enum class Kind { kNone, kCommit, kEvict, kExit };
  // The outcome for one sequence's tokens.
  struct Change {
    Kind kind = Kind::kNone;
    Selection kept;    // kCommit: tokens that stay; kEvict: their indices; by layer
    Selection pivots;  // kCommit: those that stay at 16 bit, by layer
  };
  static Kind DueFor(const Sequence& sequence);
  Change Decide(Sequence* sequence, Kind kind) const;  // runs the policy
  void Apply(Sequence* sequence, const Change& change, Result* result);
  // Moves one layer's tokens. Returns false if the sequence had to be preempted.
  bool ApplyLayer(Sequence* sequence, int layer, const Change& change, Result* result);
  void LaunchMoves(Result* result);

  Scheduler* scheduler_;
  KvGeometry geometry_;
  Move move_;
  std::vector<MoveBatch> moves_;   // not launched yet
  std::vector<Sequence*> moving_;  // whose tokens those are
};

}  // namespace tessera
