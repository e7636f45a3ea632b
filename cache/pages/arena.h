// The one allocation that holds all KV pages. It consists of 2-MiB slabs. Each slab in use belongs
// to one format and is cut into equal pages; it becomes free again when its last page is freed.
//
// Pages are reference counted (prefix sharing). Allocate takes a page from the fullest part-filled
// slab of the format, so that slabs empty out and fragmentation stays low. Prompts that will be
// compressed free their pages soon and together. Such pages get slabs of their own, because one
// longer-lived page would keep a whole slab from becoming free. Free slabs are reused last in,
// first out. Every operation takes constant time.
//
// The arena only does bookkeeping and never touches the memory; the scheduler's tests run without
// any. Threads: one thread. Errors: Allocate returns kNoPage when the arena is full; misuse is a
// CHECK.
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
// The bytes that 32-bit page ids can address (kNoPage excluded): just under 256 GiB.
constexpr int64_t kMaxArenaBytes = int64_t{kNoPage} * kPageUnitBytes;

// Is told when a watched page becomes shared (its count goes from 1 to 2) or unshared (from 2 to
// 1). The arena calls it inside Ref and Unref, so it must not call the arena.
class PageWatcher {
 public:
  virtual ~PageWatcher() = default;
  virtual void OnSharedChanged(uint32_t tag, bool shared) = 0;
};

class Arena {
 public:
  // Rounds `bytes` (at most kMaxArenaBytes; the flag's owner checks) down to whole slabs. A slab
  // has 2 MiB, or the smallest multiple of it that holds one page of every format.
  Arena(int64_t bytes, const KvGeometry& geometry);
  // As above with explicit page sizes by format, multiples of 64: for tests of formats to come.
  Arena(int64_t bytes, const KvGeometry& geometry, const std::vector<int64_t>& page_bytes);
  // Returns what slab_bytes() of such an arena will be.
  static int64_t SlabBytes(const KvGeometry& geometry);
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Returns a page with reference count 1, or kNoPage if the arena is full. `short_lived` pages
  // will be freed soon: a preference of slabs, which is ignored before the arena counts as full.
  PageId Allocate(Format format, bool short_lived = false);
  void Ref(PageId page);
  // Drops one reference to each of `pages`, from the last to the first, and frees pages at zero.
  // Neighbours in one slab cost little more than one page.
  void Unref(absl::Span<const PageId> pages);
  void Unref(PageId page) { Unref(absl::MakeConstSpan(&page, 1)); }
  int RefCount(PageId page) const;
  Format FormatOf(PageId page) const;
  // Returns true for a page in use and false for any other number. The queries above CHECK it.
  bool IsAllocated(PageId page) const;

  // Sets the one watcher (null: none) of all watched pages. It must outlive its watching.
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
  int64_t slab_used_bytes() const;  // slabs in use: their used and free pages and remainders
  int64_t pages_in_use(Format format) const { return ClassOf(format).used_pages; }
  // Returns how many pages of `format` could be allocated right now, from free and part-filled
  // slabs. Exact as long as no other format is allocated in between.
  int64_t available_pages(Format format) const;

  // Checks that used + free = total and that every count and list is consistent. For tests and
  // debug builds; linear in the number of pages.
  absl::Status CheckIntegrity() const;

 private:
  struct PageClass {  // constants and totals of one format
    int64_t page_bytes = 0;
    uint32_t page_units = 0;
    int32_t pages_per_slab = 0;
    int64_t slabs = 0;  // that belong to this format now
    int64_t used_pages = 0;
  };
  struct Slab {
    Format format = Format::kRaw16;
    bool short_lived = false;
    int32_t in_use = 0;                // pages; 0: the slab is free
    int32_t fresh = 0;                 // pages from here on are unused since the slab was taken
    std::vector<uint16_t> ref_counts;  // by page index; grows on demand, never shrinks
    std::vector<uint16_t> free_list;   // page indices below `fresh`
    std::vector<uint32_t> tags;        // by page index; shorter until a page is watched
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
  // Returns the index of the page in use that begins `unit` units after the slab's begin, or -1.
  int64_t IndexInUse(const Slab& slab, uint32_t unit) const;
  static uint32_t TagOf(const Slab& slab, int64_t index) {
    return index < static_cast<int64_t>(slab.tags.size()) ? slab.tags[index] : kNoTag;
  }
  int ListOf(Format format, bool short_lived) const {
    return static_cast<int>(format) + (short_lived ? static_cast<int>(classes_.size()) : 0);
  }
  // Puts a slab that had `in_use` pages in use before some were freed on the list it now belongs
  // to.
  void UpdateList(int64_t slab, int32_t in_use);
  absl::Status CheckSlab(int64_t slab) const;

  KvGeometry geometry_;
  int64_t slab_bytes_ = 0;
  uint32_t slab_units_ = 0;  // in units of kPageUnitBytes
  std::vector<PageClass> classes_;
  std::vector<Slab> slabs_;
  std::vector<int32_t> free_slabs_;
  SlabLists lists_;  // slabs with both used and free pages
  PageWatcher* watcher_ = nullptr;
};

}  // namespace tessera
