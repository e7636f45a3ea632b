// The KV cache of all sequences: the arena, the prefix cache, and who gets pages.
//
// It allocates pages for sequences' block tables, lets a sequence adopt the pages of a cached
// prefix, offers full blocks to the prefix cache, and evicts unreferenced blocks when pages run
// short. It never preempts: that is the scheduler's decision. Pure host logic; the memory behind
// the arena is ModelRunner's. Threads: the engine's thread.
#pragma once

#include <cstdint>

#include "cache/pages/arena.h"
#include "cache/prefix_cache.h"
#include "engine/request/observer.h"
#include "engine/runtime/sequence.h"

namespace tessera {

class KvCacheManager {
 public:
  KvCacheManager(int64_t bytes, const KvGeometry& geometry)
      : arena_(bytes, geometry), prefix_(&arena_) {}

  // Gives the sequence pages for `tokens` more tokens in every layer, evicting unreferenced prefix
  // blocks if it must. Returns false, and gives nothing, if the pages do not suffice.
  bool Allocate(Sequence* sequence, int tokens);
  // Evicts unreferenced prefix blocks until `pages` 16-bit pages are free; at least one block.
  // Returns false if there was none to evict.
  bool Evict(int64_t pages) { return prefix_.Reclaim(pages) > 0; }
  // Pages that could be allocated at 16 bit: free ones and those of unreferenced prefix blocks.
  int64_t available_pages() const;

  // Lets a new sequence adopt the pages of its longest cached prefix.
  struct PrefixHit {
    int tokens = 0;             // adopted: they need not be computed
    int recomputed_tokens = 0;  // cached as well, but the policy needs their statistics
  };
  PrefixHit AdoptPrefix(Sequence* sequence);
  // Offers the sequence's full blocks of computed, uncompressed tokens to the prefix cache.
  void CacheBlocks(Sequence* sequence);

  void Free(Sequence* sequence) { sequence->cache.Release(); }
  void ClearPrefixCache() { prefix_.Clear(); }

  const KvGeometry& geometry() const { return arena_.geometry(); }
  Arena& arena() { return arena_; }
  const Arena& arena() const { return arena_; }
  PrefixCache& prefix_cache() { return prefix_; }
  // Fills in the fields about the KV cache.
  void Describe(EngineLoad* load) const;

 private:
  Arena arena_;
  PrefixCache prefix_;
};

}  // namespace tessera
