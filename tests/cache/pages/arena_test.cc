#include "cache/pages/arena.h"

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

constexpr KvGeometry kDemo = {8, 4, 128};       // 32-KiB pages, 64 a slab
constexpr KvGeometry kLlava7B = {32, 32, 128};  // 256-KiB pages, 8 a slab
constexpr KvGeometry kTiny = {1, 1, 8};         // 512-byte pages, 4096 a slab

TEST(Arena, SizesFollowTheGeometry) {
  for (const auto& [geometry, page_bytes] :
       std::vector<std::pair<KvGeometry, int64_t>>{{kDemo, 32 << 10}, {kLlava7B, 256 << 10}}) {
    Arena arena(5 * kSlabBytes + 12345, geometry);
    EXPECT_EQ(arena.page_bytes(Format::kRaw16), page_bytes);
    EXPECT_EQ(arena.slab_bytes(), kSlabBytes);
    EXPECT_EQ(arena.total_bytes(), 5 * kSlabBytes);
    EXPECT_EQ(arena.available_pages(Format::kRaw16), 5 * kSlabBytes / page_bytes);
  }
}

// Short-lived pages do not share slabs with other pages until there is no other room.
TEST(Arena, BriefPagesHaveSlabsOfTheirOwn) {
  Arena arena(4 * kSlabBytes, kLlava7B);  // 8 RAW16 pages a slab
  const auto slab = [](PageId page) { return int64_t{page} * kPageUnitBytes / kSlabBytes; };
  std::vector<PageId> short_lived, stays;
  for (int i = 0; i < 12; ++i) {  // alternating: two slabs of each kind
    short_lived.push_back(arena.Allocate(Format::kRaw16, /*short_lived=*/true));
    stays.push_back(arena.Allocate(Format::kRaw16));
  }
  for (const PageId a : short_lived) {
    for (const PageId b : stays) EXPECT_NE(slab(a), slab(b));
  }
  EXPECT_EQ(arena.available_pages(Format::kRaw16), 8);
  // The 4 free pages of each kind serve both.
  for (int i = 0; i < 8; ++i) short_lived.push_back(arena.Allocate(Format::kRaw16, true));
  EXPECT_NE(short_lived.back(), kNoPage);
  EXPECT_EQ(arena.Allocate(Format::kRaw16, true), kNoPage);
  EXPECT_EQ(arena.Allocate(Format::kRaw16), kNoPage);
  EXPECT_TRUE(arena.CheckIntegrity().ok());
  for (const PageId page : short_lived) arena.Unref(page);
  EXPECT_EQ(arena.slab_used_bytes(), 2 * kSlabBytes);
  stays.push_back(arena.Allocate(Format::kRaw16));
  EXPECT_EQ(arena.slab_used_bytes(), 2 * kSlabBytes);
  for (const PageId page : stays) arena.Unref(page);
  EXPECT_EQ(arena.slab_used_bytes(), 0);
  EXPECT_TRUE(arena.CheckIntegrity().ok());
}

TEST(Arena, HoldsPagesOfEveryFormat) {
  // Pages of 32 heads of 128 in 2 MiB.
  const std::pair<Format, int> pages_per_slab[] = {
      {Format::kRaw16, 8},      {Format::kToken8, 15},    {Format::kToken4, 15},
      {Format::kToken2, 28},    {Format::kToken1, 51},    {Format::kKivi4, 13},
      {Format::kKivi2, 24},     {Format::kKivi1, 39},     {Format::kToken8G64, 15},
      {Format::kToken8G32, 14}, {Format::kToken4G64, 14}, {Format::kToken4G32, 12},
      {Format::kToken2G64, 25}, {Format::kToken2G32, 21}, {Format::kToken1G64, 42},
      {Format::kToken1G32, 32}, {Format::kKivi4G64, 13},  {Format::kKivi4G32, 12},
      {Format::kKivi2G64, 23},  {Format::kKivi2G32, 21},  {Format::kKivi1G64, 36},
      {Format::kKivi1G32, 32},  {Format::kSegment4, 16},  {Format::kSegment2, 32},
      {Format::kSegment1, 64},  {Format::kHeader, 64}};
  ASSERT_EQ(std::size(pages_per_slab), static_cast<size_t>(kNumFormats));
  Arena arena(kNumFormats * kSlabBytes, kLlava7B);
  EXPECT_EQ(arena.slab_bytes(), kSlabBytes);
  std::vector<std::pair<int64_t, int64_t>> ranges;  // [begin, end) in bytes
  std::vector<PageId> pages;
  for (const auto& [format, count] : pages_per_slab) {
    EXPECT_EQ(arena.available_pages(format), count * (kNumFormats - static_cast<int>(format)))
        << FormatName(format);
    for (int i = 0; i < count; ++i) {
      const PageId page = arena.Allocate(format);
      ASSERT_NE(page, kNoPage);
      EXPECT_EQ(arena.FormatOf(page), format);
      const int64_t begin = int64_t{page} * kPageUnitBytes;
      ranges.emplace_back(begin, begin + PageBytes(format, kLlava7B));
      pages.push_back(page);
    }
  }
  EXPECT_EQ(arena.Allocate(Format::kToken1), kNoPage);  // every slab is full
  std::sort(ranges.begin(), ranges.end());
  for (size_t i = 1; i < ranges.size(); ++i) EXPECT_LE(ranges[i - 1].second, ranges[i].first);
  EXPECT_TRUE(arena.CheckIntegrity().ok());
  for (PageId page : pages) arena.Unref(page);
  EXPECT_EQ(arena.slab_used_bytes(), 0);
  EXPECT_TRUE(arena.CheckIntegrity().ok());
}

TEST(Arena, APageLargerThanASlabMakesSlabsLarger) {
  const KvGeometry geometry = {2, 128, 512};  // 4 MiB a page
  Arena arena(int64_t{11} << 20, geometry);
  EXPECT_EQ(arena.slab_bytes(), int64_t{4} << 20);
  EXPECT_EQ(arena.total_bytes(), int64_t{8} << 20);
  EXPECT_NE(arena.Allocate(Format::kRaw16), kNoPage);
  EXPECT_NE(arena.Allocate(Format::kRaw16), kNoPage);
  EXPECT_EQ(arena.Allocate(Format::kRaw16), kNoPage);
  EXPECT_TRUE(arena.CheckIntegrity().ok());
}

TEST(Arena, TooSmallForASlabIsAlwaysFull) {
  Arena arena(kSlabBytes - 1, kDemo);
  EXPECT_EQ(arena.total_bytes(), 0);
  EXPECT_EQ(arena.available_pages(Format::kRaw16), 0);
  EXPECT_EQ(arena.Allocate(Format::kRaw16), kNoPage);
  EXPECT_FALSE(arena.IsAllocated(0));
  EXPECT_TRUE(arena.CheckIntegrity().ok());
}

TEST(Arena, PageIdsAreOffsetsAndNeverOverlap) {
  Arena arena(3 * kSlabBytes, kDemo);
  std::vector<int64_t> offsets;
  for (PageId page; (page = arena.Allocate(Format::kRaw16)) != kNoPage;) {
    offsets.push_back(int64_t{page} * kPageUnitBytes);
  }
  std::sort(offsets.begin(), offsets.end());
  ASSERT_EQ(offsets.size(), 3u * 64);
  for (size_t i = 0; i < offsets.size(); ++i) {
    EXPECT_EQ(offsets[i], static_cast<int64_t>(i) * (32 << 10));
  }
  EXPECT_EQ(arena.used_bytes(), arena.total_bytes());
}

TEST(Arena, TheLargestArenaStaysWithin32Bits) {
  // One-slab pages, so that the last page is cheap to reach.
  Arena arena(kMaxArenaBytes, {1, 1, 8}, {kSlabBytes});
  EXPECT_EQ(arena.total_bytes(), (int64_t{256} << 30) - kSlabBytes);
  PageId last = 0;
  int64_t pages = 0;
  for (PageId page; (page = arena.Allocate(Format::kRaw16)) != kNoPage; ++pages) last = page;
  EXPECT_EQ(pages, arena.total_bytes() / kSlabBytes);
  EXPECT_EQ(int64_t{last} * kPageUnitBytes, arena.total_bytes() - kSlabBytes);
  EXPECT_EQ(arena.RefCount(last), 1);
  EXPECT_DEATH(Arena(kMaxArenaBytes + 1, kDemo), "check failed");
}

TEST(Arena, ReferencesKeepAPageAlive) {
  Arena arena(kSlabBytes, kDemo);
  const PageId page = arena.Allocate(Format::kRaw16);
  for (int i = 0; i < 1000; ++i) arena.Ref(page);
  EXPECT_EQ(arena.RefCount(page), 1001);
  for (int i = 0; i < 1000; ++i) arena.Unref(page);
  EXPECT_TRUE(arena.IsAllocated(page));
  arena.Unref(page);
  EXPECT_FALSE(arena.IsAllocated(page));
  EXPECT_EQ(arena.used_bytes(), 0);
  EXPECT_EQ(arena.slab_used_bytes(), 0);
}

TEST(Arena, PagesAreFreedTogetherAsOneByOne) {
  Arena together(4 * kSlabBytes, kLlava7B), singly(4 * kSlabBytes, kLlava7B);  // 8 pages a slab
  std::vector<PageId> pages;
  for (int i = 0; i < 30; ++i) {
    pages.push_back(together.Allocate(Format::kRaw16));
    ASSERT_EQ(singly.Allocate(Format::kRaw16), pages.back());
  }
  // A whole slab, parts of full slabs and of a part-filled one, alternating. One page stays because
  // it has another reference, and one page loses both.
  std::vector<PageId> freed(pages.begin() + 3, pages.begin() + 18);
  for (const int i : {28, 20, 27, 19, 20}) freed.push_back(pages[i]);
  for (Arena* arena : {&together, &singly}) {
    arena->Ref(pages[5]);
    arena->Ref(pages[20]);
  }
  together.Unref(freed);
  for (size_t i = freed.size(); i-- > 0;) singly.Unref(freed[i]);
  EXPECT_EQ(together.RefCount(pages[5]), 1);
  EXPECT_FALSE(together.IsAllocated(pages[20]));
  EXPECT_EQ(together.used_bytes(), singly.used_bytes());
  EXPECT_EQ(together.slab_used_bytes(), 3 * kSlabBytes);
  EXPECT_TRUE(together.CheckIntegrity().ok()) << together.CheckIntegrity();
  for (PageId page = 0; page != kNoPage;) {
    page = together.Allocate(Format::kRaw16);
    EXPECT_EQ(singly.Allocate(Format::kRaw16), page);
  }
  together.Unref(absl::Span<const PageId>());
  EXPECT_DEATH(together.Unref({pages[0], pages[1], pages[0]}), "check failed");
}

TEST(ArenaDeath, MisuseIsACheck) {
  Arena arena(kSlabBytes, kDemo);
  const PageId page = arena.Allocate(Format::kRaw16);
  EXPECT_DEATH(arena.Ref(page + 1), "check failed");  // inside a page
  EXPECT_DEATH(arena.Unref(kNoPage), "check failed");
  EXPECT_DEATH(arena.Allocate(static_cast<Format>(200)), "check failed");
  EXPECT_DEATH(
      {
        for (int i = 0; i < 65535; ++i) arena.Ref(page);  // 65535 is the limit
      },
      "check failed");
  arena.Unref(page);
  EXPECT_DEATH(arena.Unref(page), "check failed");
  EXPECT_DEATH(arena.RefCount(page), "check failed");
}

TEST(Arena, TakesFromTheFullestSlabSoThatSlabsEmpty) {
  Arena arena(3 * kSlabBytes, kLlava7B);  // 8 pages a slab
  std::vector<PageId> pages;
  for (int i = 0; i < 24; ++i) pages.push_back(arena.Allocate(Format::kRaw16));
  // Slab 0 keeps 2 pages, slab 1 keeps 6, slab 2 keeps 4.
  for (int i : {0, 1, 2, 3, 4, 5, 8, 9, 16, 17, 18, 19}) arena.Unref(pages[i]);
  const auto slab = [](PageId page) { return int64_t{page} * kPageUnitBytes / kSlabBytes; };
  std::vector<int64_t> taken;
  for (int i = 0; i < 7; ++i) taken.push_back(slab(arena.Allocate(Format::kRaw16)));
  EXPECT_THAT(taken, testing::ElementsAre(1, 1, 2, 2, 2, 2, 0));
  EXPECT_TRUE(arena.CheckIntegrity().ok());
}

TEST(Arena, FreeSlabsAreReusedLastInFirstOut) {
  Arena arena(3 * kSlabBytes, {1, 1, 8}, {kSlabBytes});
  const PageId a = arena.Allocate(Format::kRaw16), b = arena.Allocate(Format::kRaw16);
  arena.Unref(a);
  arena.Unref(b);
  EXPECT_EQ(arena.Allocate(Format::kRaw16), b);
  EXPECT_EQ(arena.Allocate(Format::kRaw16), a);
}

class RecordingWatcher : public PageWatcher {
 public:
  void OnSharedChanged(uint32_t tag, bool shared) override { events.emplace_back(tag, shared); }
  std::vector<std::pair<uint32_t, bool>> events;
};

TEST(Arena, WatchersHearOnlyOfOneAndMore) {
  Arena arena(kSlabBytes, kDemo);
  RecordingWatcher watcher;
  arena.SetWatcher(&watcher);
  const PageId page = arena.Allocate(Format::kRaw16), other = arena.Allocate(Format::kRaw16);
  arena.Watch(page, 7);
  EXPECT_EQ(arena.WatchTag(page), 7u);
  EXPECT_EQ(arena.WatchTag(other), Arena::kNoTag);
  arena.Ref(other);
  arena.Ref(page);    // 2: shared
  arena.Ref(page);    // 3
  arena.Unref(page);  // 2
  arena.Unref(page);  // 1: sole
  EXPECT_THAT(watcher.events, testing::ElementsAre(std::pair(7u, true), std::pair(7u, false)));
  EXPECT_DEATH(arena.Unref(page), "check failed");  // freeing a watched page
  arena.Unwatch(page);
  arena.Ref(page);
  EXPECT_EQ(watcher.events.size(), 2u);
}

// Runs random operations against a model that knows only the contract.
class ModelRun {
 public:
  // `page_bytes` has one size per format.
  ModelRun(int slabs, const std::vector<int64_t>& page_bytes, uint64_t seed)
      : page_bytes_(page_bytes),
        slabs_(slabs),
        arena_(slabs * kSlabBytes, {1, 1, 8}, page_bytes),
        slab_format_(slabs, -1),
        slab_pages_(slabs, 0),
        pages_of_(page_bytes.size(), 0),
        random_(seed) {}

  void Run(int operations) {
    ASSERT_EQ(arena_.slab_bytes(), kSlabBytes);
    int64_t until_turn = 0;
    bool growing = false;
    for (int op = 0; op < operations; ++op) {
      if (until_turn-- == 0) {  // long phases of growth and decline reach both ends
        growing = !growing;
        until_turn = slabs_ * PerSlab(0) * 2 + static_cast<int64_t>(random_() % 64);
      }
      const uint64_t draw = random_() % 100;
      if (draw < (growing ? 70u : 20u)) {
        Allocate();
      } else if (!live_.empty()) {
        RefOrUnref(/*ref=*/draw >= 90);
      }
      if (op % (operations / 50) == 0) Check();
      if (testing::Test::HasFatalFailure()) return;
    }
    EXPECT_GT(met_full_, operations / 1000);  // else the traffic never filled the arena
    EXPECT_GT(had_choice_, operations / 1000);
    for (const Page& page : live_) {
      for (int i = 0; i < page.refs; ++i) arena_.Unref(page.id);
    }
    EXPECT_EQ(arena_.slab_used_bytes(), 0);
    EXPECT_TRUE(arena_.CheckIntegrity().ok());
  }

 private:
  struct Page {
    PageId id;
    int refs;
  };
  int64_t PerSlab(int format) const { return kSlabBytes / page_bytes_[format]; }
  static int SlabOf(PageId id) {
    return static_cast<int>(int64_t{id} * kPageUnitBytes / kSlabBytes);
  }

  void Allocate() {
    const int format = static_cast<int>(random_() % page_bytes_.size());
    int fullest = -1, emptiest = std::numeric_limits<int>::max(), free_slabs = 0;
    int64_t available = 0;
    for (int s = 0; s < slabs_; ++s) {
      if (slab_format_[s] < 0) ++free_slabs;
      if (slab_format_[s] != format) continue;
      available += PerSlab(format) - slab_pages_[s];
      if (slab_pages_[s] == PerSlab(format)) continue;
      fullest = std::max(fullest, slab_pages_[s]);
      emptiest = std::min(emptiest, slab_pages_[s]);
    }
    available += free_slabs * PerSlab(format);
    ASSERT_EQ(arena_.available_pages(static_cast<Format>(format)), available);
    const PageId id = arena_.Allocate(static_cast<Format>(format));
    ASSERT_EQ(id == kNoPage, available == 0);
    met_full_ += id == kNoPage;
    had_choice_ += emptiest < fullest - PerSlab(format) / 4;
    if (id == kNoPage) return;
    const int s = SlabOf(id);
    ASSERT_LT(s, slabs_);
    if (fullest > 0) {
      ASSERT_EQ(slab_format_[s], format);
      ASSERT_EQ(slab_pages_[s], fullest);
    } else {
      ASSERT_EQ(slab_format_[s], -1);
      slab_format_[s] = format;
    }
    ASSERT_EQ(static_cast<int>(arena_.FormatOf(id)), format);
    ++slab_pages_[s];
    ++pages_of_[format];
    live_.push_back({id, 1});
  }

  void RefOrUnref(bool ref) {
    const size_t i = random_() % live_.size();
    ASSERT_EQ(arena_.RefCount(live_[i].id), live_[i].refs);
    if (ref) {
      arena_.Ref(live_[i].id);
      ++live_[i].refs;
      return;
    }
    const int s = SlabOf(live_[i].id), format = slab_format_[s];
    arena_.Unref(live_[i].id);
    if (--live_[i].refs > 0) return;
    ASSERT_FALSE(arena_.IsAllocated(live_[i].id));
    --pages_of_[format];
    if (--slab_pages_[s] == 0) slab_format_[s] = -1;
    live_[i] = live_.back();
    live_.pop_back();
  }

  void Check() const {
    ASSERT_TRUE(arena_.CheckIntegrity().ok()) << arena_.CheckIntegrity();
    int64_t used = 0;
    for (size_t f = 0; f < page_bytes_.size(); ++f) {
      ASSERT_EQ(arena_.pages_in_use(static_cast<Format>(f)), pages_of_[f]);
      used += pages_of_[f] * page_bytes_[f];
    }
    ASSERT_EQ(arena_.used_bytes(), used);
    ASSERT_EQ(arena_.slab_used_bytes(),
              kSlabBytes * (slabs_ - std::count(slab_format_.begin(), slab_format_.end(), -1)));
    std::vector<std::pair<int64_t, int64_t>> ranges;
    for (const Page& page : live_) {
      ranges.emplace_back(int64_t{page.id} * kPageUnitBytes,
                          page_bytes_[slab_format_[SlabOf(page.id)]]);
    }
    std::sort(ranges.begin(), ranges.end());
    for (size_t i = 1; i < ranges.size(); ++i) {
      ASSERT_LE(ranges[i - 1].first + ranges[i - 1].second, ranges[i].first) << "pages overlap";
    }
  }

  const std::vector<int64_t> page_bytes_;
  const int slabs_;
  Arena arena_;
  std::vector<Page> live_;
  std::vector<int> slab_format_, slab_pages_;
  std::vector<int64_t> pages_of_;
  std::mt19937_64 random_;
  int64_t met_full_ = 0, had_choice_ = 0;
};

void CompareWithModel(int slabs, const std::vector<int64_t>& page_bytes, int operations,
                      uint64_t seed) {
  ModelRun(slabs, page_bytes, seed).Run(operations);
}

TEST(ArenaModel, LargePages) { CompareWithModel(6, {256 << 10}, 1'000'000, 1); }
TEST(ArenaModel, DemoPages) { CompareWithModel(4, {32 << 10}, 1'000'000, 2); }
TEST(ArenaModel, TinyPages) { CompareWithModel(3, {512}, 1'000'000, 3); }
TEST(ArenaModel, SmallestPages) { CompareWithModel(2, {64}, 500'000, 4); }
TEST(ArenaModel, MixedFormatsWithRemainders) {
  // 16-, 4- and 2-bit pages of a 7B model (with metadata), and an odd size.
  CompareWithModel(12, {256 << 10, 139264, 73728, 100 * 64}, 1'000'000, 5);
}

}  // namespace
}  // namespace tessera
