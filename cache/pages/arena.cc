#include "cache/pages/arena.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/base.h"

namespace tessera {
namespace {

std::vector<int64_t> PageBytesByFormat(const KvGeometry& geometry) {
  TESSERA_CHECK(geometry.layers > 0 && geometry.kv_heads > 0 && geometry.head_dim > 0);
  std::vector<int64_t> bytes(kNumFormats);
  for (int f = 0; f < kNumFormats; ++f) bytes[f] = PageBytes(static_cast<Format>(f), geometry);
  return bytes;
}

int64_t SlabBytesFor(const std::vector<int64_t>& page_bytes) {
  return RoundUp(*std::max_element(page_bytes.begin(), page_bytes.end()), kSlabBytes);
}

// Returns the largest number of free pages of a listed slab, for each list (Arena::ListOf). A
// listed slab has at least one used page.
std::vector<int32_t> MaxFree(const std::vector<int64_t>& page_bytes) {
  std::vector<int32_t> max_free;
  for (int lifetime = 0; lifetime < 2; ++lifetime) {
    for (int64_t bytes : page_bytes) {
      max_free.push_back(static_cast<int32_t>(SlabBytesFor(page_bytes) / bytes - 1));
    }
  }
  return max_free;
}

}  // namespace

Arena::Arena(int64_t bytes, const KvGeometry& geometry)
    : Arena(bytes, geometry, PageBytesByFormat(geometry)) {}

Arena::Arena(int64_t bytes, const KvGeometry& geometry, const std::vector<int64_t>& page_bytes)
    : geometry_(geometry),
      slab_bytes_(SlabBytesFor(page_bytes)),
      classes_(page_bytes.size()),
      slabs_(bytes / slab_bytes_),
      lists_(bytes / slab_bytes_, MaxFree(page_bytes)) {
  TESSERA_CHECK(bytes >= 0 && bytes <= kMaxArenaBytes && slab_bytes_ <= kMaxArenaBytes);
  slab_units_ = static_cast<uint32_t>(slab_bytes_ / kPageUnitBytes);
  for (size_t f = 0; f < page_bytes.size(); ++f) {
    TESSERA_CHECK(page_bytes[f] > 0 && page_bytes[f] % kPageUnitBytes == 0);
    const int64_t pages_per_slab = slab_bytes_ / page_bytes[f];
    TESSERA_CHECK(pages_per_slab <= int64_t{std::numeric_limits<uint16_t>::max()} + 1);
    classes_[f].page_bytes = page_bytes[f];
    classes_[f].page_units = static_cast<uint32_t>(page_bytes[f] / kPageUnitBytes);
    classes_[f].pages_per_slab = static_cast<int32_t>(pages_per_slab);
  }
  for (int64_t s = slabs_.size(); s-- > 0;) free_slabs_.push_back(static_cast<int32_t>(s));
}

int64_t Arena::SlabBytes(const KvGeometry& geometry) {
  return SlabBytesFor(PageBytesByFormat(geometry));
}

PageId Arena::Allocate(Format format, bool short_lived) {
  PageClass& page_class = ClassOf(format);
  int32_t s = lists_.Fullest(ListOf(format, short_lived));
  if (s < 0 && free_slabs_.empty()) s = lists_.Fullest(ListOf(format, !short_lived));
  if (s >= 0) {
    lists_.Remove(s);
  } else {
    if (free_slabs_.empty()) return kNoPage;
    s = free_slabs_.back();
    free_slabs_.pop_back();
    ++page_class.slabs;
    slabs_[s].format = format;
    slabs_[s].short_lived = short_lived;
    if (slabs_[s].ref_counts.size() < static_cast<size_t>(page_class.pages_per_slab)) {
      slabs_[s].ref_counts.resize(page_class.pages_per_slab, 0);
    }
  }
  Slab& slab = slabs_[s];
  int64_t index;
  if (slab.free_list.empty()) {
    index = slab.fresh++;
  } else {
    index = slab.free_list.back();
    slab.free_list.pop_back();
  }
  slab.ref_counts[index] = 1;
  ++slab.in_use;
  ++page_class.used_pages;
  if (slab.in_use < page_class.pages_per_slab) {
    lists_.Add(ListOf(format, slab.short_lived), s, page_class.pages_per_slab - slab.in_use);
  }
  return static_cast<PageId>(int64_t{s} * slab_units_ + index * page_class.page_units);
}

void Arena::Ref(PageId page) {
  TESSERA_CHECK(IsAllocated(page));
  Slab& slab = slabs_[SlabOf(page)];
  const int64_t index = IndexOf(page);
  uint16_t& count = slab.ref_counts[index];
  TESSERA_CHECK(count < std::numeric_limits<uint16_t>::max());
  ++count;
  const uint32_t tag = TagOf(slab, index);
  if (count == 2 && tag != kNoTag) watcher_->OnSharedChanged(tag, true);
}

void Arena::Unref(absl::Span<const PageId> pages) {
  while (!pages.empty()) {
    const int64_t s = SlabOf(pages.back());
    TESSERA_CHECK(s < static_cast<int64_t>(slabs_.size()));
    Slab& slab = slabs_[s];
    const auto first = static_cast<PageId>(s * slab_units_);
    const int32_t in_use = slab.in_use;
    for (; !pages.empty() && pages.back() - first < slab_units_; pages.remove_suffix(1)) {
      const int64_t index = IndexInUse(slab, pages.back() - first);
      TESSERA_CHECK(index >= 0);
      const int count = --slab.ref_counts[index];
      const uint32_t tag = TagOf(slab, index);
      if (count == 0) {
        TESSERA_CHECK(tag == kNoTag);
        slab.free_list.push_back(static_cast<uint16_t>(index));
        --slab.in_use;
      } else if (count == 1 && tag != kNoTag) {
        watcher_->OnSharedChanged(tag, false);
      }
    }
    if (slab.in_use < in_use) UpdateList(s, in_use);
  }
}

void Arena::UpdateList(int64_t s, int32_t in_use) {
  Slab& slab = slabs_[s];
  PageClass& page_class = ClassOf(slab.format);
  if (in_use < page_class.pages_per_slab) lists_.Remove(static_cast<int32_t>(s));
  page_class.used_pages -= in_use - slab.in_use;
  if (slab.in_use > 0) {
    lists_.Add(ListOf(slab.format, slab.short_lived), static_cast<int32_t>(s),
               page_class.pages_per_slab - slab.in_use);
    return;
  }
  slab.free_list.clear();
  slab.fresh = 0;
  --page_class.slabs;
  free_slabs_.push_back(static_cast<int32_t>(s));
}

int64_t Arena::IndexInUse(const Slab& slab, uint32_t unit) const {
  const uint32_t page_units = ClassOf(slab.format).page_units;
  const int64_t index = unit / page_units;
  if (unit % page_units != 0 || index >= slab.fresh || slab.ref_counts[index] == 0) return -1;
  return index;
}

bool Arena::IsAllocated(PageId page) const {
  const int64_t s = SlabOf(page);
  return s < static_cast<int64_t>(slabs_.size()) && IndexInUse(slabs_[s], page % slab_units_) >= 0;
}

int Arena::RefCount(PageId page) const {
  TESSERA_CHECK(IsAllocated(page));
  return slabs_[SlabOf(page)].ref_counts[IndexOf(page)];
}

Format Arena::FormatOf(PageId page) const {
  TESSERA_CHECK(IsAllocated(page));
  return slabs_[SlabOf(page)].format;
}

void Arena::SetWatcher(PageWatcher* watcher) {
  TESSERA_CHECK(watcher == nullptr || watcher_ == nullptr);
  watcher_ = watcher;
}

void Arena::Watch(PageId page, uint32_t tag) {
  TESSERA_CHECK(watcher_ != nullptr && tag != kNoTag && WatchTag(page) == kNoTag);
  Slab& slab = slabs_[SlabOf(page)];
  if (slab.tags.size() < slab.ref_counts.size()) slab.tags.resize(slab.ref_counts.size(), kNoTag);
  slab.tags[IndexOf(page)] = tag;
}

void Arena::Unwatch(PageId page) {
  TESSERA_CHECK(WatchTag(page) != kNoTag);
  slabs_[SlabOf(page)].tags[IndexOf(page)] = kNoTag;
}

uint32_t Arena::WatchTag(PageId page) const {
  TESSERA_CHECK(IsAllocated(page));
  return TagOf(slabs_[SlabOf(page)], IndexOf(page));
}

int64_t Arena::total_bytes() const { return static_cast<int64_t>(slabs_.size()) * slab_bytes_; }

int64_t Arena::used_bytes() const {
  int64_t bytes = 0;
  for (const PageClass& c : classes_) bytes += c.used_pages * c.page_bytes;
  return bytes;
}

int64_t Arena::slab_used_bytes() const {
  return static_cast<int64_t>(slabs_.size() - free_slabs_.size()) * slab_bytes_;
}

int64_t Arena::available_pages(Format format) const {
  const PageClass& c = ClassOf(format);
  const int64_t slabs = c.slabs + static_cast<int64_t>(free_slabs_.size());
  return slabs * c.pages_per_slab - c.used_pages;
}

absl::Status Arena::CheckSlab(int64_t s) const {
  const Slab& slab = slabs_[s];
  const PageClass& c = ClassOf(slab.format);
  const auto error = [s](absl::string_view what) {
    return absl::InternalError(absl::StrCat("slab ", s, ": ", what));
  };
  const int64_t referenced = std::count_if(slab.ref_counts.begin(), slab.ref_counts.end(),
                                           [](uint16_t count) { return count > 0; });
  if (referenced != slab.in_use) return error("the pages in use are not the pages with references");
  for (size_t i = 0; i < slab.tags.size(); ++i) {
    if (slab.tags[i] != kNoTag && slab.ref_counts[i] == 0) return error("a free page is watched");
  }
  const bool part_filled = slab.in_use > 0 && slab.in_use < c.pages_per_slab;
  if (lists_.FreePages(s) != (part_filled ? c.pages_per_slab - slab.in_use : 0)) {
    return error("is on the wrong list");
  }
  if (slab.in_use == 0) {
    return slab.fresh == 0 && slab.free_list.empty() ? absl::OkStatus()
                                                     : error("is free but lists pages");
  }
  if (slab.fresh > c.pages_per_slab ||
      slab.in_use + static_cast<int64_t>(slab.free_list.size()) != slab.fresh) {
    return error("used and freed pages do not add up to the pages ever used");
  }
  std::vector<bool> listed(slab.fresh);
  for (uint16_t index : slab.free_list) {
    if (index >= slab.fresh || slab.ref_counts[index] != 0 || listed[index]) {
      return error("wrong entry in the free list");
    }
    listed[index] = true;
  }
  return absl::OkStatus();
}

absl::Status Arena::CheckIntegrity() const {
  RETURN_IF_ERROR(lists_.CheckIntegrity());
  std::vector<std::pair<int64_t, int64_t>> found(classes_.size());  // slabs, used pages
  std::vector<bool> in_use(slabs_.size());
  for (size_t s = 0; s < slabs_.size(); ++s) {
    RETURN_IF_ERROR(CheckSlab(static_cast<int64_t>(s)));
    in_use[s] = slabs_[s].in_use > 0;
    auto& [slabs, pages] = found[static_cast<size_t>(slabs_[s].format)];
    slabs += in_use[s];
    pages += slabs_[s].in_use;
  }
  int64_t given = static_cast<int64_t>(free_slabs_.size());
  for (size_t f = 0; f < classes_.size(); ++f) {
    if (found[f] != std::make_pair(classes_[f].slabs, classes_[f].used_pages)) {
      return absl::InternalError(absl::StrCat("format ", f, ": wrong totals"));
    }
    given += classes_[f].slabs;
  }
  if (given != static_cast<int64_t>(slabs_.size())) {
    return absl::InternalError("used and free slabs are not all slabs");
  }
  for (int32_t s : free_slabs_) {
    if (in_use[s]) return absl::InternalError(absl::StrCat("slab ", s, ": free twice or in use"));
    in_use[s] = true;
  }
  return absl::OkStatus();
}

}  // namespace tessera
