// The one allocation that holds all KV pages: 2-MiB slabs, each given to one format and cut into
// equal pages; a slab goes back to the arena when its last page is freed.
//
// Pages are reference counted (prefix sharing). Allocation takes from the fullest part-filled slab
// of the format, so that slabs empty out and little is stranded; pages that will soon be freed
// together, those of prompts that are to be compressed, have slabs of their own, as one that stays
// behind would hold a slab. Free slabs are reused last in, first out. Every operation takes
// constant time. The arena does bookkeeping only: it never touches the memory, so the scheduler's
// tests use it without any. Threads: one thread. Errors: Allocate says "full" by kNoPage; misuse is
// a CHECK.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/base.h"
#include "cache/pages/slab_lists.h"
#include "kernels/layout/page_layout.h"

namespace tessera {

constexpr int64_t kSlabBytes = 2 << 20;
// What 32-bit page ids can name (kNoPage excluded): just under 256 GiB.
constexpr int64_t kMaxArenaBytes = int64_t{kNoPage} * kPageUnitBytes;

// Learns when a watched page becomes shared (its count goes from one to two) or sole again.
// Called inside Ref and Unref: must not call the arena.
class PageWatcher {
 public:
  virtual ~PageWatcher() = default;
  virtual void OnSharedChanged(uint32_t tag, bool shared) = 0;
};

class Arena {
 public:
  // `bytes` (at most kMaxArenaBytes: the flag's owner checks) is rounded down to whole slabs. A
  // slab has 2 MiB, or the smallest multiple of it that holds one page of every format.
  Arena(int64_t bytes, const KvGeometry& geometry);
  // The same with given page sizes, by format (multiples of 64): formats that do not exist yet.
  Arena(int64_t bytes, const KvGeometry& geometry, const std::vector<int64_t>& page_bytes);
  // What slab_bytes() will be.
  static int64_t SlabBytes(const KvGeometry& geometry);
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Reference count 1, or kNoPage. `short_lived`: soon to be freed; a preference, which gives way
  // before the arena is full.
  PageId Allocate(Format format, bool short_lived = false);
  void Ref(PageId page);
  // Frees at zero, the last of `pages` first. Neighbours of one slab cost little more than one.
  void Unref(absl::Span<const PageId> pages);
  void Unref(PageId page) { Unref(absl::MakeConstSpan(&page, 1)); }
  int RefCount(PageId page) const;
  Format FormatOf(PageId page) const;
  // True for a page in use; false for any other number. The queries above CHECK it.
  bool IsAllocated(PageId page) const;

  // One watcher (null: none) for all watched pages; it must outlive its watching.
  void SetWatcher(PageWatcher* watcher);
  void Watch(PageId page, uint32_t tag);  // REQUIRES: not watched; tag != kNoTag
  void Unwatch(PageId page);              // REQUIRES: watched; before the page is freed
  static constexpr uint32_t kNoTag = 0xffffffffu;
  uint32_t WatchTag(PageId page) const;  // kNoTag: not watched

  const KvGeometry& geometry() const { return geometry_; }
  int64_t page_bytes(Format format) const { return ClassOf(format).page_bytes; }
  int64_t slab_bytes() const { return slab_bytes_; }
  int64_t total_bytes() const;      // whole slabs
  int64_t used_bytes() const;       // pages in use
  int64_t slab_used_bytes() const;  // slabs given out: used + free pages in them + their remainders
  int64_t pages_in_use(Format format) const { return ClassOf(format).used_pages; }
  // Pages of `format` that could be allocated right now (free slabs and part-filled ones). Exact as
  // long as nothing of another format is allocated in between.
  int64_t available_pages(Format format) const;

  // Proves used + free = total, every count and list consistent. For tests and debug builds; linear
  // in the number of pages.
  absl::Status CheckIntegrity() const;

 private:
  struct PageClass {  // constants and totals of one format
    int64_t page_bytes = 0;
    uint32_t page_units = 0;
    int32_t pages_per_slab = 0;
    int64_t slabs = 0;  // given to this format now
    int64_t used_pages = 0;
  };
  struct Slab {
    Format format = Format::kRaw16;
    bool short_lived = false;
    int32_t in_use = 0;                // pages; 0: the slab is free
    int32_t fresh = 0;                 // pages from here on were not used since the slab was given
    std::vector<uint16_t> ref_counts;  // by page index; grows to what was needed, never shrinks
    std::vector<uint16_t> free_list;   // page indices below `fresh`
    std::vector<uint32_t> tags;        // by page index; shorter while nothing was watched
  };

  const PageClass& ClassOf(Format format) const {
    TESSERA_CHECK(static_cast<size_t>(format) < classes_.size());
    return classes_[static_cast<size_t>(format)];
  }
  PageClass& ClassOf(Format format) {
    return const_cast<PageClass&>(std::as_const(*this).ClassOf(format));
  }
  int64_t SlabOf(PageId page) const { return page / slab_units_; }
  int64_t IndexOf(PageId page) const {
    return page % slab_units_ / ClassOf(slabs_[SlabOf(page)].format).page_units;
  }
  // Of the page in use that begins so many units behind the slab's begin; -1: there is none.
  int64_t IndexInUse(const Slab& slab, uint32_t unit) const;
  static uint32_t TagOf(const Slab& slab, int64_t index) {
    return index < static_cast<int64_t>(slab.tags.size()) ? slab.tags[index] : kNoTag;
  }
  int ListOf(Format format, bool short_lived) const {
    return static_cast<int>(format) + (short_lived ? static_cast<int>(classes_.size()) : 0);
  }
  // Puts a slab of which pages were freed, `in_use` before, where it belongs now.
  void Shelve(int64_t slab, int32_t in_use);
  absl::Status CheckSlab(int64_t slab) const;

  KvGeometry geometry_;
  int64_t slab_bytes_ = 0;
  uint32_t slab_units_ = 0;  // of kPageUnitBytes
  std::vector<PageClass> classes_;
  std::vector<Slab> slabs_;
  std::vector<int32_t> free_slabs_;
  SlabLists lists_;  // slabs with both used and free pages
  PageWatcher* watcher_ = nullptr;
};

}  // namespace tessera
