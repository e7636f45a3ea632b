// The KV cache of one sequence: for every layer a list of runs, each the pages of one format.
//
// Today every layer holds one RAW16 run in token order; policies will replace runs at commit, so
// code here never assumes that physical token i is logical token i except inside a RAW16 run.
// Ownership: holds one reference to each of its pages; Release or the destructor gives them back.
// Threads: one thread (the engine's). Move-only.
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
  // A shared last page that is part-filled is never written: prefix pages are always full.
  bool Extend(int tokens);
  // Pages that Extend(tokens) would have to allocate, over all layers.
  int64_t PagesToExtend(int tokens) const;
  // Drops the newest `tokens` (reserved but never computed), freeing emptied pages.
  void Shrink(int tokens);
  // Starts from shared full pages: pages[layer][i], each referenced here. REQUIRES: empty.
  void AdoptPrefix(const std::vector<std::vector<PageId>>& pages, int tokens);
  void Release();

  int length() const { return length_; }  // tokens stored or reserved, logical
  const std::vector<Run>& runs(int layer) const { return layers_[layer]; }
  int layers() const { return static_cast<int>(layers_.size()); }
  KvSlot SlotOf(int layer, int token) const;  // REQUIRES: token < length(), in a RAW16 run
  int64_t pages() const;                      // held, over all layers
  int64_t bytes() const;                      // allocated page bytes, over all layers
  absl::Status CheckIntegrity() const;        // every layer stores length() tokens exactly once

 private:
  Arena* arena_ = nullptr;
  int length_ = 0;
  std::vector<std::vector<Run>> layers_;
};

}  // namespace tessera
