// The KV cache of one sequence: for every layer a list of runs, each the pages of one format.
//
// The newest tokens of a layer are always in a RAW16 run that stands last, the *open* run; Extend
// and Shrink move its end. Today it is the only run and holds every token in order; policies will
// put other runs before it at commit and shorten it, layer by layer, so nothing here assumes that
// layers are alike, or that physical token i is logical token i except inside the open run. A run
// is never empty. Ownership: holds one reference to each of its pages; Release or the destructor
// gives them back. The arena must outlive it. Threads: one thread (the engine's). Move-only; what
// was moved from may only be destroyed or assigned to.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "cache/arena.h"
#include "kernels/page_layout.h"

namespace tessera {

struct Run {
  Format format = Format::kRaw16;
  std::vector<PageId> pages;
  int32_t tokens = 0;
};

class SequenceCache {
 public:
  explicit SequenceCache(Arena* arena);
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

  int length() const { return length_; }  // tokens stored or reserved, logical
  const std::vector<Run>& runs(int layer) const { return layers_[layer]; }
  int layers() const { return static_cast<int>(layers_.size()); }
  // Where logical token `token` lies. REQUIRES: token < length(), in the layer's open run.
  KvSlot SlotOf(int layer, int token) const;
  int64_t pages() const;                // held, over all layers
  int64_t bytes() const;                // bytes of the held pages, over all layers
  absl::Status CheckIntegrity() const;  // every layer stores length() tokens exactly once

 private:
  static constexpr Format kOpen = Format::kRaw16;
  static constexpr int kOpenTokens = PageTokens(kOpen);  // per page
  static int32_t TokensInOpenRun(const std::vector<Run>& runs);

  Arena* arena_ = nullptr;
  int length_ = 0;
  std::vector<std::vector<Run>> layers_;
};

}  // namespace tessera
