// Part-filled slabs, shelved by format and by their number of free pages.
//
// Add, Remove and Fullest take constant time (links inside an array, and a two-level bitmap of the
// shelves in use, of which Fullest scans at most 16 words), because every page allocated or freed
// moves its slab by one shelf. Within a shelf the slab added last comes first.
// Threads: one thread. Misuse is a CHECK.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace tessera {

class SlabShelves {
 public:
  // `max_free[format]`: the largest number of free pages a part-filled slab of `format` can have.
  SlabShelves(int64_t slabs, const std::vector<int32_t>& max_free);

  void Add(int format, int32_t slab, int32_t free_pages);  // REQUIRES: on no shelf, 1..max_free
  void Remove(int32_t slab);                               // REQUIRES: on a shelf
  // The slab of `format` with the fewest free pages, or -1.
  int32_t Fullest(int format) const;
  // Free pages of a slab as it was shelved, or 0 when it stands on no shelf.
  int32_t FreePages(int32_t slab) const { return links_[slab].free_pages; }

  absl::Status CheckIntegrity() const;

 private:
  struct Link {
    int32_t previous = -1;
    int32_t next = -1;
    int32_t free_pages = 0;  // 0: on no shelf
    int32_t format = 0;
  };
  struct Shelves {                // of one format; shelf f holds slabs with f free pages
    std::vector<int32_t> heads;   // [max_free + 1], -1: empty
    std::vector<uint64_t> used;   // bit f: shelf f is not empty
    std::vector<uint64_t> words;  // bit w: used[w] is not zero
  };

  std::vector<Link> links_;       // by slab
  std::vector<Shelves> formats_;  // by format
};

}  // namespace tessera
