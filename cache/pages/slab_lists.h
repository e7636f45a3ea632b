// Part-filled slabs, listed by format and by their number of free pages.
//
// Add, Remove and Fullest take constant time (links inside an array, and a two-level bitmap of the
// lists in use, of which Fullest scans at most 16 words), because every page allocated or freed
// moves its slab by one list. Within a list the slab added last comes first.
// Threads: one thread. Misuse is a CHECK.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace tessera {

class SlabLists {
 public:
  // `max_free[format]`: the largest number of free pages a part-filled slab of `format` can have.
  SlabLists(int64_t slabs, const std::vector<int32_t>& max_free);

  void Add(int format, int32_t slab, int32_t free_pages);  // REQUIRES: on no list, 1..max_free
  void Remove(int32_t slab);                               // REQUIRES: on a list
  // The slab of `format` with the fewest free pages, or -1.
  int32_t Fullest(int format) const;
  // Free pages of a slab as it was listed, or 0 when it stands on no list.
  int32_t FreePages(int32_t slab) const { return links_[slab].free_pages; }

  absl::Status CheckIntegrity() const;

 private:
  struct Link {
    int32_t previous = -1;
    int32_t next = -1;
    int32_t free_pages = 0;  // 0: on no list
    int32_t format = 0;
  };
  struct Lists {                  // of one format; list f holds slabs with f free pages
    std::vector<int32_t> heads;   // [max_free + 1], -1: empty
    std::vector<uint64_t> used;   // bit f: list f is not empty
    std::vector<uint64_t> words;  // bit w: used[w] is not zero
  };

  std::vector<Link> links_;     // by slab
  std::vector<Lists> formats_;  // by format
};

}  // namespace tessera
