#include "cache/sequence_cache.h"

#include <random>
#include <set>
#include <utility>
#include <vector>

#include "cache/audit.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

constexpr KvGeometry kGeometry = {3, 4, 128};  // 3 layers, 64 pages a slab

std::vector<std::vector<PageId>> PagesByLayer(const SequenceCache& sequence) {
  std::vector<std::vector<PageId>> pages;
  for (int layer = 0; layer < sequence.layers(); ++layer) {
    pages.push_back(sequence.runs(layer).empty() ? std::vector<PageId>{}
                                                 : sequence.runs(layer)[0].pages);
  }
  return pages;
}

TEST(SequenceCache, GrowsPageByPage) {
  Arena arena(kSlabBytes, kGeometry);
  SequenceCache sequence(&arena);
  EXPECT_EQ(sequence.layers(), 3);
  int64_t pages = 0;
  for (int length = 1; length <= 100; ++length) {
    pages += sequence.PagesToExtend(1);
    ASSERT_TRUE(sequence.Extend(1));
    ASSERT_EQ(sequence.length(), length);
    ASSERT_EQ(sequence.pages(), 3 * ((length + 15) / 16));
    ASSERT_EQ(sequence.pages(), pages);
    ASSERT_EQ(sequence.bytes(), pages * (32 << 10));
    ASSERT_EQ(arena.used_bytes(), sequence.bytes());
  }
  EXPECT_EQ(sequence.PagesToExtend(0), 0);
  EXPECT_EQ(sequence.PagesToExtend(12), 0);  // 100 = 6 pages and 4
  EXPECT_EQ(sequence.PagesToExtend(13), 3);
  EXPECT_EQ(sequence.PagesToExtend(29), 6);
  EXPECT_TRUE(sequence.CheckIntegrity().ok());
}

TEST(SequenceCache, EverySlotIsDistinctAndInOrder) {
  Arena arena(kSlabBytes, kGeometry);
  SequenceCache sequence(&arena);
  ASSERT_TRUE(sequence.Extend(50));
  std::set<std::pair<PageId, uint32_t>> slots;
  for (int layer = 0; layer < 3; ++layer) {
    ASSERT_EQ(sequence.runs(layer).size(), 1u);
    EXPECT_EQ(sequence.runs(layer)[0].tokens, 50);
    for (int token = 0; token < 50; ++token) {
      const KvSlot slot = sequence.SlotOf(layer, token);
      EXPECT_EQ(slot.page, sequence.runs(layer)[0].pages[token / 16]);
      EXPECT_EQ(slot.slot, static_cast<uint32_t>(token % 16));
      EXPECT_TRUE(slots.emplace(slot.page, slot.slot).second);
    }
  }
  EXPECT_DEATH(sequence.SlotOf(0, 50), "check failed");
  EXPECT_DEATH(sequence.SlotOf(0, -1), "check failed");
}

TEST(SequenceCache, ExtendIsAllOrNothing) {
  Arena arena(kSlabBytes, kGeometry);  // 64 pages: 21 a layer and one left over
  SequenceCache sequence(&arena);
  EXPECT_FALSE(sequence.Extend(22 * 16));
  EXPECT_EQ(sequence.length(), 0);
  EXPECT_EQ(arena.used_bytes(), 0);
  ASSERT_TRUE(sequence.Extend(21 * 16 - 5));
  const auto pages = PagesByLayer(sequence);
  EXPECT_FALSE(sequence.Extend(6));  // one page would be there, three are needed
  EXPECT_EQ(sequence.length(), 21 * 16 - 5);
  EXPECT_EQ(PagesByLayer(sequence), pages);
  EXPECT_TRUE(AuditCache(arena, nullptr, {&sequence}).ok());
  EXPECT_TRUE(sequence.Extend(5));  // needs none
  EXPECT_EQ(arena.pages_in_use(Format::kRaw16), 63);
}

TEST(SequenceCache, ShrinkUndoesExtend) {
  Arena arena(kSlabBytes, kGeometry);
  SequenceCache sequence(&arena);
  ASSERT_TRUE(sequence.Extend(20));
  const auto pages = PagesByLayer(sequence);
  for (int tokens : {0, 1, 12, 13, 100}) {
    ASSERT_TRUE(sequence.Extend(tokens));
    sequence.Shrink(tokens);
    EXPECT_EQ(sequence.length(), 20);
    EXPECT_EQ(PagesByLayer(sequence), pages);
    EXPECT_TRUE(AuditCache(arena, nullptr, {&sequence}).ok());
  }
  sequence.Shrink(20);
  EXPECT_EQ(arena.used_bytes(), 0);
  EXPECT_TRUE(sequence.runs(0).empty());
  EXPECT_DEATH(sequence.Shrink(1), "check failed");
}

TEST(SequenceCache, AdoptedPagesAreSharedAndNeverWritten) {
  Arena arena(kSlabBytes, kGeometry);
  SequenceCache first(&arena), second(&arena);
  ASSERT_TRUE(first.Extend(32));
  const auto prefix = PagesByLayer(first);
  second.AdoptPrefix(prefix, 32);
  EXPECT_EQ(second.length(), 32);
  EXPECT_EQ(arena.pages_in_use(Format::kRaw16), 6);
  EXPECT_EQ(second.PagesToExtend(1), 3);
  ASSERT_TRUE(second.Extend(1));
  for (int layer = 0; layer < 3; ++layer) {
    const KvSlot slot = second.SlotOf(layer, 32);
    EXPECT_EQ(slot.slot, 0u);
    EXPECT_EQ(arena.RefCount(slot.page), 1);
    EXPECT_EQ(arena.RefCount(prefix[layer][0]), 2);
  }
  EXPECT_TRUE(AuditCache(arena, nullptr, {&first, &second}).ok());
  first.Release();
  EXPECT_TRUE(AuditCache(arena, nullptr, {&second}).ok());
  EXPECT_EQ(second.pages(), 9);
  second.Release();
  EXPECT_EQ(arena.used_bytes(), 0);
}

TEST(SequenceCache, WritingIntoASharedPageIsACheck) {
  Arena arena(kSlabBytes, kGeometry);
  SequenceCache first(&arena), second(&arena);
  ASSERT_TRUE(first.Extend(32));
  second.AdoptPrefix(PagesByLayer(first), 32);
  second.Shrink(3);
  EXPECT_DEATH(second.Extend(1), "check failed");
  EXPECT_DEATH(second.AdoptPrefix(PagesByLayer(first), 32), "check failed");  // not empty
}

TEST(SequenceCache, MovesCarryThePages) {
  Arena arena(kSlabBytes, kGeometry);
  SequenceCache a(&arena);
  ASSERT_TRUE(a.Extend(40));
  const auto pages = PagesByLayer(a);
  SequenceCache b(std::move(a));
  EXPECT_EQ(PagesByLayer(b), pages);
  SequenceCache c(&arena);
  ASSERT_TRUE(c.Extend(100));
  c = std::move(b);  // c's own pages are given back
  EXPECT_EQ(PagesByLayer(c), pages);
  EXPECT_EQ(c.length(), 40);
  EXPECT_TRUE(AuditCache(arena, nullptr, {&c}).ok());
  SequenceCache& alias = c;
  c = std::move(alias);
  EXPECT_EQ(c.length(), 40);
  std::vector<SequenceCache> grown;
  for (int i = 0; i < 5; ++i) {
    grown.emplace_back(&arena);
    ASSERT_TRUE(grown.back().Extend(10));
  }
  c = SequenceCache(&arena);
  grown.clear();
  EXPECT_EQ(arena.used_bytes(), 0);
}

TEST(SequenceCache, ManySequencesAtRandomConserveEveryPage) {
  Arena arena(2 * kSlabBytes, kGeometry);
  std::mt19937 random(7);
  std::vector<SequenceCache> sequences;
  for (int i = 0; i < 12; ++i) sequences.emplace_back(&arena);
  int refused = 0;
  for (int op = 0; op < 20000; ++op) {
    SequenceCache& sequence = sequences[random() % sequences.size()];
    const int64_t held = sequence.pages(), free = arena.available_pages(Format::kRaw16);
    switch (random() % 8) {
      case 0:
        sequence.Release();
        break;
      case 1:
        sequence.Shrink(static_cast<int>(random() % (sequence.length() + 1)));
        break;
      default: {
        const int tokens = static_cast<int>(random() % 60), length = sequence.length();
        const int64_t needed = sequence.PagesToExtend(tokens);
        const bool grown = sequence.Extend(tokens);
        ASSERT_EQ(grown, needed <= free);
        ASSERT_EQ(sequence.length(), grown ? length + tokens : length);
        ASSERT_EQ(sequence.pages(), held + (grown ? needed : 0));
        refused += !grown;
      }
    }
    if (op % 100 != 0) continue;
    std::vector<const SequenceCache*> all;
    for (const SequenceCache& s : sequences) all.push_back(&s);
    ASSERT_TRUE(AuditCache(arena, nullptr, all).ok()) << AuditCache(arena, nullptr, all);
  }
  EXPECT_GT(refused, 100);  // the arena was really full at times
  sequences.clear();
  EXPECT_EQ(arena.slab_used_bytes(), 0);
}

TEST(Audit, FindsLeaksAndForgottenHolders) {
  Arena arena(kSlabBytes, kGeometry);
  SequenceCache sequence(&arena);
  ASSERT_TRUE(sequence.Extend(40));
  EXPECT_FALSE(AuditCache(arena, nullptr, {}).ok());
  const PageId leaked = arena.Allocate(Format::kRaw16);
  EXPECT_FALSE(AuditCache(arena, nullptr, {&sequence}).ok());
  arena.Unref(leaked);
  EXPECT_TRUE(AuditCache(arena, nullptr, {&sequence}).ok());
  const PageId page = sequence.runs(1)[0].pages[0];
  arena.Ref(page);
  EXPECT_FALSE(AuditCache(arena, nullptr, {&sequence}).ok());
  arena.Unref(page);
}

}  // namespace
}  // namespace tessera
