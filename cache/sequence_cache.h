// The KV cache of one sequence: for every layer a list of runs, each the pages of one format.
//
// The newest tokens of a layer are in its *open* run: RAW16, always the last one, absent only while
// it would be empty; Extend and Shrink move its end. Until its commit a layer has no other run.
// Commit moves, layer by layer, what a policy keeps into *closed* runs, one a format in the order
// of formats (where a format has headers: one an image), and the window into fresh pages, so that
// its front stays on a page border; later ExitWindow moves the oldest 32 tokens at a time, or Evict
// compacts the open run. Layers need not be alike: each holds its own tokens, in ascending order
// inside a run, with their logical positions.
//
// Commit, ExitWindow and Evict do bookkeeping only: they name the moves of bytes, and keep the
// pages that were read ("retired") until FinishMoves: MoveTokens must have been issued before it.
// Shared pages are read and let go, never written. A run is never empty. Ownership: holds one
// reference to each of its pages; Release or the destructor gives them back. The arena must outlive
// it. Threads: one thread (the engine's). Move-only; what was moved from may only be destroyed or
// assigned to. Errors: a full arena is `false`, with nothing changed; misuse is a CHECK.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "cache/pages/arena.h"
#include "cache/policy/storage.h"
#include "kernels/layout/page_layout.h"

namespace tessera {

struct Run {
  Format format = Format::kRaw16;
  std::vector<PageId> pages;
  int32_t tokens = 0;
  bool open = false;
  // Logical positions, ascending: the first tokens' are listed, the others follow one another from
  // `tail`. A closed run lists all.
  std::vector<int32_t> listed;
  int32_t tail = 0;
  PageId header = kNoPage;  // HasHeader(format): the segment's scales
  LogitMap map;             // how attention reads it

  int32_t Position(int32_t index) const {
    const auto n = static_cast<int32_t>(listed.size());
    return index < n ? listed[index] : tail + index - n;
  }
  std::vector<int32_t> Positions() const;  // [tokens]
};

struct EvictedTokens {
  int64_t text = 0;
  int64_t vision = 0;
};

class SequenceCache {
 public:
  // `commits`: until Commit the pages are brief (Arena::Allocate).
  explicit SequenceCache(Arena* arena, bool commits = false);
  SequenceCache(SequenceCache&&) noexcept;
  SequenceCache& operator=(SequenceCache&&) noexcept;
  ~SequenceCache();

  // Makes room for `tokens` more in every layer: all or nothing. False when the arena is full.
  // A shared last page that is part-filled is never written: prefix pages are always full (CHECK).
  bool Extend(int tokens);
  // Pages that Extend(tokens) would have to allocate, over all layers; all are RAW16.
  int64_t PagesToExtend(int tokens) const;
  // Drops the newest `tokens` (reserved but never computed), freeing emptied pages.
  // REQUIRES: every layer's open run holds them.
  void Shrink(int tokens);
  // Starts from shared full pages: pages[layer][i], each referenced here. REQUIRES: empty; `tokens`
  // fills the pages exactly.
  void AdoptPrefix(const std::vector<std::vector<PageId>>& pages, int tokens);
  void Release();  // afterwards it is empty and may be used again

  // Stores `layer` as a policy decided: of all tokens those in `kept` (ascending) stay, the last
  // storage.window of them at 16 bit, `pivots` (ascending, some of `kept`) at 16 bit too, even when
  // they leave the window later, the others by class. `vision`: the prompt's flags, as for ClassAt.
  // Adds to `moves`. REQUIRES: the layer was not committed and did not exit; no pivots with formats
  // that fill whole pages. Nothing moves when all tokens stay in the window.
  bool Commit(int layer, absl::Span<const int32_t> kept, absl::Span<const uint8_t> vision,
              const LayerStorage& storage, std::vector<MoveBatch>* moves,
              absl::Span<const int32_t> pivots = {});
  // Moves the layer's oldest open tokens, kExitTokens at a time, while that leaves a window.
  bool ExitWindow(int layer, absl::Span<const uint8_t> vision, const LayerStorage& storage,
                  std::vector<MoveBatch>* moves);
  // Of the layer's tokens, all of them in its open run, only those at the indices `kept`
  // (ascending) stay. Pages before the first that leaves stay as they are.
  bool Evict(int layer, absl::Span<const int32_t> kept, absl::Span<const uint8_t> vision,
             std::vector<MoveBatch>* moves);
  // Tokens that may be added before a layer's next exit is due (at least 1 when none is due now):
  // steps that recompute an answer must end there to see the runs that the first pass saw.
  int TokensToExit(int layer, const LayerStorage& storage) const;
  void FinishMoves();  // gives the retired pages back

  int length() const { return length_; }  // tokens stored or reserved, logical
  const std::vector<Run>& runs(int layer) const { return Synced(layer); }
  int layers() const { return static_cast<int>(layers_.size()); }
  int stored(int layer) const { return length_ - static_cast<int>(evicted_by_layer_[layer]); }
  const KvGeometry& geometry() const { return arena_->geometry(); }
  // Where logical token `token` lies. REQUIRES: it is in the layer's open run.
  KvSlot SlotOf(int layer, int token) const;
  int64_t pages() const { return pages_; }  // held, over all layers, retired ones included
  int64_t bytes() const { return bytes_; }  // of the held pages
  const std::vector<PageId>& retired() const { return retired_; }
  // Not stored any more, summed over layers: divided by layers(), the mean number of tokens.
  const EvictedTokens& evicted() const { return evicted_; }
  // Bits that a stored value of K or V takes, metadata included and free slots not; 0 when empty.
  double MeanBits() const;
  // Every layer stores every token that it did not evict exactly once.
  absl::Status CheckIntegrity() const;

 private:
  static constexpr Format kOpen = Format::kRaw16;
  static constexpr int kOpenTokens = PageTokens(kOpen);  // per page
  static int32_t TokensInOpenRun(const std::vector<Run>& runs) {
    return !runs.empty() && runs.back().open ? runs.back().tokens : 0;
  }
  // The layer's runs, after its open run has taken up what Extend added since it was last looked
  // at. Extend itself touches no layer while every open page has room: a step of many sequences
  // would else spend its planning on cache misses.
  std::vector<Run>& Synced(int layer) const;
  static int DueExits(const std::vector<Run>& runs, const LayerStorage& storage);
  // Adds `count` pages of `format` to `pages`; false: the arena is full (some may be added).
  bool AllocatePages(Format format, int64_t count, std::vector<PageId>* pages);
  void UnrefAll(const std::vector<PageId>& pages);
  void ReleaseRun(const Run& run);
  // Where a token goes that is older than the window.
  Format FormatOf(int layer, int32_t position, absl::Span<const uint8_t> vision,
                  const LayerStorage& storage) const;
  absl::Status CheckLayer(int layer) const;

  Arena* arena_ = nullptr;
  bool commits_ = false;
  bool committed_ = false;  // some layer
  int length_ = 0;
  int64_t pages_ = 0;
  int64_t bytes_ = 0;
  int spare_ = 0;  // tokens for which every layer's open run surely has slots
  mutable std::vector<std::vector<Run>> layers_;
  mutable std::vector<int32_t> known_;  // [layers] the length that the layer's open run knows of
  std::vector<std::vector<int32_t>> pivots_;  // [layers] as Commit was told
  std::vector<PageId> retired_;
  EvictedTokens evicted_;
  std::vector<int64_t> evicted_by_layer_;  // text and vision
};

}  // namespace tessera
