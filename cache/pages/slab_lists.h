// Free lists of a slab allocator: part-filled slabs, listed by class and by number of free pages. A
// class is a page format and a lifetime (Arena::ListOf).
//
// Add, Remove and Fullest take constant time, because every page that is allocated or freed moves
// its slab by one list. The links lie in an array; a two-level bitmap marks the lists that are not
// empty, and Fullest scans at most 16 of its words. The slab that was added last comes first in its
// list.
// Threads: one thread. Errors: misuse is a CHECK.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace tessera {

class SlabLists {
 public:
  // `max_free[class]` is the largest number of free pages of a part-filled slab of that class.
  SlabLists(int64_t slabs, const std::vector<int32_t>& max_free);

  // Adds a slab. REQUIRES: it is on no list; 1 <= free_pages <= max_free[size_class].
  void Add(int size_class, int32_t slab, int32_t free_pages);
  void Remove(int32_t slab);  // REQUIRES: the slab is on a list
  // Returns the slab of the class with the fewest free pages, or -1.
  int32_t Fullest(int size_class) const;
  // Returns the number of free pages that the slab was listed with, or 0 when it is on no list.
  int32_t FreePages(int32_t slab) const { return links_[slab].free_pages; }

  absl::Status CheckIntegrity() const;

 private:
  struct Link {
    int32_t previous = -1;
    int32_t next = -1;
    int32_t free_pages = 0;  // 0: on no list
    int32_t size_class = 0;
  };
  struct Lists {                  // of one class; list f holds slabs with f free pages
    std::vector<int32_t> heads;   // [max_free + 1], -1: empty
    std::vector<uint64_t> used;   // bit f: list f is not empty
    std::vector<uint64_t> words;  // bit w: used[w] is not zero
  };

  std::vector<Link> links_;     // by slab
  std::vector<Lists> classes_;  // by class
};

}  // namespace tessera
