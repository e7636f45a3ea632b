#include "cache/pages/slab_lists.h"

#include <bit>

#include "absl/strings/str_cat.h"
#include "base/base.h"

namespace tessera {

SlabLists::SlabLists(int64_t slabs, const std::vector<int32_t>& max_free)
    : links_(slabs), classes_(max_free.size()) {
  for (size_t f = 0; f < max_free.size(); ++f) {
    const size_t bits = static_cast<size_t>(max_free[f]) + 1;
    classes_[f].heads.assign(bits, -1);
    classes_[f].used.assign(CeilDiv<size_t>(bits, 64), 0);
    classes_[f].words.assign(CeilDiv<size_t>(classes_[f].used.size(), 64), 0);
  }
}

void SlabLists::Add(int size_class, int32_t slab, int32_t free_pages) {
  Lists& lists = classes_[size_class];
  Link& link = links_[slab];
  TESSERA_CHECK(link.free_pages == 0);
  TESSERA_CHECK(free_pages > 0 && free_pages < static_cast<int32_t>(lists.heads.size()));
  int32_t& head = lists.heads[free_pages];
  link = {-1, head, free_pages, size_class};
  if (head >= 0) links_[head].previous = slab;
  head = slab;
  const int32_t word = free_pages / 64;
  lists.used[word] |= uint64_t{1} << (free_pages % 64);
  lists.words[word / 64] |= uint64_t{1} << (word % 64);
}

void SlabLists::Remove(int32_t slab) {
  Link& link = links_[slab];
  TESSERA_CHECK(link.free_pages > 0);
  Lists& lists = classes_[link.size_class];
  if (link.next >= 0) links_[link.next].previous = link.previous;
  if (link.previous >= 0) {
    links_[link.previous].next = link.next;
  } else {
    lists.heads[link.free_pages] = link.next;
    if (link.next < 0) {
      const int32_t word = link.free_pages / 64;
      lists.used[word] &= ~(uint64_t{1} << (link.free_pages % 64));
      if (lists.used[word] == 0) lists.words[word / 64] &= ~(uint64_t{1} << (word % 64));
    }
  }
  link = {};
}

int32_t SlabLists::Fullest(int size_class) const {
  const Lists& lists = classes_[size_class];
  for (size_t i = 0; i < lists.words.size(); ++i) {
    if (lists.words[i] == 0) continue;
    const size_t word = i * 64 + std::countr_zero(lists.words[i]);
    return lists.heads[word * 64 + std::countr_zero(lists.used[word])];
  }
  return -1;
}

absl::Status SlabLists::CheckIntegrity() const {
  size_t listed = 0;
  for (size_t f = 0; f < classes_.size(); ++f) {
    const Lists& lists = classes_[f];
    for (size_t s = 0; s < lists.heads.size(); ++s) {
      const bool marked = (lists.used[s / 64] >> (s % 64)) & 1;
      if (marked != (lists.heads[s] >= 0)) {
        return absl::InternalError(absl::StrCat("list ", s, " of class ", f, ": wrong mark"));
      }
      int32_t previous = -1;
      for (int32_t slab = lists.heads[s]; slab >= 0; slab = links_[slab].next) {
        const Link& link = links_[slab];
        if (link.previous != previous || link.free_pages != static_cast<int32_t>(s) ||
            link.size_class != static_cast<int32_t>(f) || ++listed > links_.size()) {
          return absl::InternalError(absl::StrCat("slab ", slab, ": wrong link on its list"));
        }
        previous = slab;
      }
    }
    for (size_t w = 0; w < lists.used.size(); ++w) {
      const bool marked = (lists.words[w / 64] >> (w % 64)) & 1;
      if (marked != (lists.used[w] != 0)) {
        return absl::InternalError(absl::StrCat("lists of class ", f, ": wrong summary"));
      }
    }
  }
  for (const Link& link : links_) {
    if (link.free_pages > 0) --listed;  // each was reached above, or the sum is not zero
  }
  return listed == 0 ? absl::OkStatus() : absl::InternalError("a listed slab is on no list");
}

}  // namespace tessera
