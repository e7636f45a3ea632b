// The one allocation that holds all KV pages: 2-MiB slabs, each given to one format and cut into
// equal pages; a slab goes back to the arena when its last page is freed.
//
// Pages are reference counted (prefix sharing). Allocation takes from the fullest part-filled slab
// of the format, so that slabs empty out and little is stranded. The arena does bookkeeping only:
// it never touches the memory, so the scheduler's tests use it without any. Threads: one thread.
// Errors: Allocate says "full" by kNoPage; misuse is a CHECK.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/page_layout.h"

namespace tessera {

constexpr int64_t kSlabBytes = 2 << 20;

class Arena {
 public:
  // `bytes` is rounded down to whole slabs, or to one slab's worth of pages if a page is larger
  // than kSlabBytes (then a slab is the smallest multiple of 2 MiB that holds one page).
  Arena(int64_t bytes, const KvGeometry& geometry);

  PageId Allocate(Format format);  // reference count 1, or kNoPage
  void Ref(PageId page);
  void Unref(PageId page);  // frees at zero
  int RefCount(PageId page) const;
  Format FormatOf(PageId page) const;

  const KvGeometry& geometry() const { return geometry_; }
  int64_t slab_bytes() const { return slab_bytes_; }
  int64_t total_bytes() const;      // whole slabs
  int64_t used_bytes() const;       // pages in use
  int64_t slab_used_bytes() const;  // slabs given out: used + stranded
  int64_t pages_in_use(Format format) const;
  // Pages of `format` that could be allocated right now (free slabs and part-filled ones).
  int64_t available_pages(Format format) const;

  // Proves used + free = total, every count and list consistent. For tests and debug builds.
  absl::Status CheckIntegrity() const;

 private:
  // Filled in by the implementation.
  struct Slab {
    Format format = Format::kRaw16;
    int32_t in_use = 0;                // pages; 0: the slab is free
    std::vector<uint16_t> ref_counts;  // by page index
    std::vector<uint16_t> free_list;   // page indices
  };
  int64_t SlabOf(PageId page) const;
  int64_t IndexOf(PageId page) const;

  KvGeometry geometry_;
  int64_t slab_bytes_ = 0;
  std::vector<Slab> slabs_;
  std::vector<int32_t> free_slabs_;
  int64_t used_pages_[kNumFormats] = {};
};

}  // namespace tessera
