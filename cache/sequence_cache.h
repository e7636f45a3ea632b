// The KV cache of one sequence: for every layer a block table in segments ("runs"), each the pages
// of one format.
//
// The newest tokens of a layer are in its *open* run. It is RAW16, always the last run, and absent
// only while it would be empty. Extend and Shrink move its end. Before its commit a layer has no
// other run.
//
// Commit compresses the prompt. Layer by layer it moves the tokens that a policy keeps into
// *closed* runs: one for each format, in the order of formats, or one for each image where the
// format has a header page. It moves the 16-bit window into fresh pages so that the window starts
// at a page border. Later ExitWindow moves the window's oldest tokens, 32 at a time, or Evict
// compacts the open run. Layers may differ: each holds its own tokens, in ascending order inside a
// run, and their logical positions.
//
// Commit, ExitWindow and Evict only do bookkeeping. They name the moves of bytes and keep the
// source pages ("retired") until FinishMoves. The caller must have issued Ops::MoveTokens before
// that. Shared pages are read and then released, never written.
//
// Ownership: holds one reference to each of its pages; Release or the destructor gives them back.
// The arena must outlive it. Threads: one thread (the engine's). Movable only; a moved-from object
// may only be destroyed or assigned to. Errors: a full arena returns false and changes nothing;
// misuse is a CHECK.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "cache/pages/arena.h"
#include "cache/policy/storage.h"
#include "cache/run.h"

namespace tessera {

struct EvictedTokens {  // by class
  int64_t text = 0;
  int64_t vision = 0;
};

class SequenceCache {
 public:
  // If `commits`, the sequence will be compressed: pages until Commit are short-lived
  // (Arena::Allocate).
  explicit SequenceCache(Arena* arena, bool commits = false);
  SequenceCache(SequenceCache&&) noexcept;
  SequenceCache& operator=(SequenceCache&&) noexcept;
  ~SequenceCache();

  // Makes room for `tokens` more tokens in every layer. Returns false and changes nothing when the
  // arena is full. Never writes to a shared page: a prefix's pages are always full (CHECK).
  bool Extend(int tokens);
  // Returns how many pages, all RAW16, Extend(tokens) would allocate over all layers.
  int64_t PagesToExtend(int tokens) const;
  // Drops the newest `tokens` tokens, which were reserved but never computed, and frees emptied
  // pages. REQUIRES: every layer's open run holds them.
  void Shrink(int tokens);
  // Starts from shared full pages[layer][i] and takes a reference to each. REQUIRES: the sequence
  // is empty; `tokens` fills the pages exactly.
  void AdoptPrefix(const std::vector<std::vector<PageId>>& pages, int tokens);
  void Release();  // gives all pages back; the object is then empty and usable again

  // Stores `layer` as a policy decided and appends the moves to `moves`. Only the tokens in `kept`
  // (ascending) stay. The last storage.window of them stay at 16 bit, the older ones take their
  // class's format. `pivots` (ascending, a subset of `kept`) stay at 16 bit even after they leave
  // the window. `vision` has the prompt's flags (ClassAt). Moves nothing when all tokens stay in
  // the window.
  // REQUIRES: the layer has not been committed and nothing has left its window; no pivots with
  // formats that fill whole pages.
  bool Commit(int layer, absl::Span<const int32_t> kept, absl::Span<const uint8_t> vision,
              const LayerStorage& storage, std::vector<MoveBatch>* moves,
              absl::Span<const int32_t> pivots = {});
  // Moves the layer's oldest open tokens into closed runs, kExitTokens at a time, while the window
  // stays full.
  bool ExitWindow(int layer, absl::Span<const uint8_t> vision, const LayerStorage& storage,
                  std::vector<MoveBatch>* moves);
  // Keeps only the tokens at the indices `kept` (ascending). Pages before the first evicted token
  // stay as they are. REQUIRES: all of the layer's tokens are in its open run.
  bool Evict(int layer, absl::Span<const int32_t> kept, absl::Span<const uint8_t> vision,
             std::vector<MoveBatch>* moves);
  // Returns how many tokens may be added before the layer's next window exit is due (at least 1
  // when none is due now). Steps that recompute an answer must end there, to see the same runs as
  // the first pass.
  int TokensToExit(int layer, const LayerStorage& storage) const;
  void FinishMoves();  // frees the retired pages

  int length() const { return length_; }  // logical: stored, reserved and evicted tokens
  const std::vector<Run>& runs(int layer) const { return Synced(layer); }
  int layers() const { return static_cast<int>(layers_.size()); }
  int stored(int layer) const { return length_ - static_cast<int>(evicted_by_layer_[layer]); }
  const KvGeometry& geometry() const { return arena_->geometry(); }
  // Returns the slot of logical token `token`. REQUIRES: it is in the layer's open run.
  KvSlot SlotOf(int layer, int token) const;
  int64_t pages() const { return pages_; }  // held, over all layers, with retired ones
  int64_t bytes() const { return bytes_; }  // of those pages
  const std::vector<PageId>& retired() const { return retired_; }
  // Evicted tokens, summed over layers: divide by layers() for the mean.
  const EvictedTokens& evicted() const { return evicted_; }
  // Returns the mean bits of a stored value of K or V, with metadata, without free slots; 0 if
  // empty.
  double MeanBits() const;
  // Checks that every layer stores each token that it did not evict exactly once.
  absl::Status CheckIntegrity() const;

 private:
  static constexpr Format kOpen = Format::kRaw16;
  static constexpr int kOpenTokens = PageTokens(kOpen);  // per page
  static int32_t TokensInOpenRun(const std::vector<Run>& runs) {
    return !runs.empty() && runs.back().open ? runs.back().tokens : 0;
  }
  // Returns the layer's runs, with the tokens that Extend added since the last look in its open
  // run. Extend itself touches no layer while every open page has room, because a step with many
  // sequences would spend its planning time on cache misses.
  std::vector<Run>& Synced(int layer) const;
  static int DueExits(const std::vector<Run>& runs, const LayerStorage& storage);
  // Appends `count` pages of `format` to `pages`. Returns false if the arena fills up; some pages
  // may then have been appended.
  bool AllocatePages(Format format, int64_t count, std::vector<PageId>* pages);
  // Steps of Commit. AllocateRuns returns false if the arena fills up; `fresh` then has the runs
  // that got pages.
  struct Division;
  static Division Divide(absl::Span<const int32_t> kept, absl::Span<const uint8_t> vision,
                         const LayerStorage& storage, absl::Span<const int32_t> pivots);
  bool AllocateRuns(const Division& division, std::vector<Run>* fresh);
  void CountEvicted(int layer, absl::Span<const int32_t> kept, absl::Span<const uint8_t> vision);
  void UnrefAll(const std::vector<PageId>& pages);
  void ReleaseRun(const Run& run);
  // Returns the format of a token that is older than the window.
  Format FormatOf(int layer, int32_t position, absl::Span<const uint8_t> vision,
                  const LayerStorage& storage) const;
  absl::Status CheckLayer(int layer) const;

  Arena* arena_ = nullptr;
  bool commits_ = false;
  bool committed_ = false;  // at least one layer is committed
  int length_ = 0;
  int64_t pages_ = 0;
  int64_t bytes_ = 0;
  int spare_ = 0;  // tokens that fit into the open pages of every layer
  mutable std::vector<std::vector<Run>> layers_;
  mutable std::vector<int32_t> known_;        // [layers] length_ when the layer was last synced
  std::vector<std::vector<int32_t>> pivots_;  // [layers] as given to Commit
  std::vector<PageId> retired_;
  EvictedTokens evicted_;
  std::vector<int64_t> evicted_by_layer_;  // [layers] text and vision
};

}  // namespace tessera
