// Commit and window exit under pressure: full arenas, shared pages, misuse.
#include <vector>

#include "cache/audit.h"
#include "cache/sequence_cache.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cache/fake_moves.h"

namespace tessera {
namespace {

constexpr KvGeometry kGeometry = kMovesGeometry;

LayerStorage Uniform(Format format, int window) { return {format, format, {}, {}, window}; }

void CommitAll(SequenceCache& cache, const LayerStorage& storage, FakeMemory& memory,
               const Arena& arena) {
  std::vector<MoveBatch> moves;
  for (int layer = 0; layer < cache.layers(); ++layer) {
    ASSERT_TRUE(cache.Commit(layer, All(cache.length()), {}, storage, &moves));
  }
  memory.Run(moves, arena);
  cache.FinishMoves();
}

TEST(SequenceMoves, CommitInAFullArenaFailsCleanlyAndSucceedsOnceThereIsRoom) {
  for (const Format format : {Format::kToken8, Format::kToken4, Format::kToken2, Format::kToken1,
                              Format::kKivi4, Format::kKivi2, Format::kKivi1}) {
    Arena arena(2 * kSlabBytes, kGeometry);
    SequenceCache cache(&arena), other(&arena);
    FakeMemory memory;
    ASSERT_TRUE(cache.Extend(21 * 16));  // 63 of 64 pages
    memory.Write(cache, 1, 0, 21 * 16);
    ASSERT_TRUE(other.Extend(16));  // 3 pages: reaches into the other slab
    const LayerStorage storage = Uniform(format, 32);
    const auto before = State(cache);
    const int64_t slabs = arena.slab_used_bytes(), used = arena.used_bytes();
    std::vector<MoveBatch> moves;
    EXPECT_FALSE(cache.Commit(0, All(21 * 16), {}, storage, &moves));
    EXPECT_TRUE(moves.empty());
    EXPECT_EQ(State(cache), before);
    EXPECT_EQ(arena.used_bytes(), used);
    EXPECT_EQ(arena.slab_used_bytes(), slabs);
    EXPECT_TRUE(AuditCache(arena, nullptr, {&cache, &other}).ok());

    // Now the new format gets its slab, but the window gets only one of its two pages: all is
    // rolled back.
    other.Release();
    EXPECT_FALSE(cache.Commit(0, All(21 * 16), {}, storage, &moves));
    EXPECT_TRUE(moves.empty());
    EXPECT_EQ(State(cache), before);
    EXPECT_EQ(arena.slab_used_bytes(), kSlabBytes);
    EXPECT_TRUE(AuditCache(arena, nullptr, {&cache}).ok());

    cache.Shrink(16);  // room: 3 pages
    for (int layer = 0; layer < 3; ++layer) {
      ASSERT_TRUE(cache.Commit(layer, All(20 * 16), {}, storage, &moves)) << FormatName(format);
      EXPECT_GT(cache.retired().size(), 0u);
      EXPECT_EQ(cache.bytes(), arena.used_bytes());
      EXPECT_TRUE(AuditCache(arena, nullptr, {&cache}).ok());
      memory.Run(moves, arena);
      moves.clear();
      cache.FinishMoves();  // else the next layer's window has no room
    }
    memory.Verify(cache, 1);
    EXPECT_TRUE(AuditCache(arena, nullptr, {&cache}).ok());
  }
}

TEST(SequenceMoves, ExitInAFullArenaFailsCleanlyAndIsMadeUpFor) {
  Arena arena(3 * kSlabBytes, kGeometry);
  SequenceCache cache(&arena), other(&arena);
  FakeMemory memory;
  const LayerStorage storage = Uniform(Format::kToken2, 16);
  ASSERT_TRUE(cache.Extend(10));
  memory.Write(cache, 1, 0, 10);
  CommitAll(cache, storage, memory, arena);  // all in the window: nothing moves
  EXPECT_EQ(cache.runs(0).size(), 1u);
  while (other.Extend(16)) {
  }
  other.Shrink(16 * 5);  // 15 pages of 16 bit, but no slab for another format
  EXPECT_EQ(cache.TokensToExit(0, storage), 38);
  std::vector<MoveBatch> moves;
  for (int t = 10; t < 90; ++t) {
    ASSERT_TRUE(cache.Extend(1));
    memory.Write(cache, 1, t, 1);
    const auto before = State(cache);
    EXPECT_EQ(cache.ExitWindow(0, {}, storage, &moves), t < 47);
    EXPECT_EQ(State(cache), before);
  }
  EXPECT_EQ(cache.TokensToExit(0, storage), 0);
  EXPECT_TRUE(moves.empty());
  EXPECT_TRUE(AuditCache(arena, nullptr, {&cache, &other}).ok());
  other.Release();
  for (int layer = 0; layer < 3; ++layer) {
    ASSERT_TRUE(cache.ExitWindow(layer, {}, storage, &moves));
  }
  memory.Run(moves, arena);
  cache.FinishMoves();
  memory.Verify(cache, 1);
  ASSERT_EQ(cache.runs(0).size(), 2u);
  EXPECT_EQ(cache.runs(0)[0].tokens, 64);  // both groups that were due
  EXPECT_EQ(cache.runs(0)[1].tokens, 26);
  EXPECT_EQ(cache.TokensToExit(0, storage), 22);
  EXPECT_TRUE(AuditCache(arena, nullptr, {&cache}).ok());
}

TEST(SequenceMoves, EvictionMovesWhatFollowsTheFirstGap) {
  Arena arena(2 * kSlabBytes, kGeometry);
  SequenceCache cache(&arena);
  FakeMemory memory;
  ASSERT_TRUE(cache.Extend(70));
  memory.Write(cache, 1, 0, 70);
  const std::vector<PageId> before = cache.runs(0)[0].pages;
  for (const PageId page : before) arena.Ref(page);  // another holder reads them
  std::vector<int32_t> kept = All(70);
  for (const int32_t gone : {69, 41, 40, 20}) kept.erase(kept.begin() + gone);
  for (int layer = 0; layer < 3; ++layer) {
    std::vector<MoveBatch> moves;
    ASSERT_TRUE(cache.Evict(layer, kept, std::vector<uint8_t>(41, 1), &moves));
    EXPECT_EQ(cache.retired().size(), 4u);  // the first page stays
    ASSERT_EQ(moves.size(), 1u);
    EXPECT_EQ(moves[0].moves.size(), 50u);
    memory.Run(moves, arena);
    cache.FinishMoves();
    EXPECT_EQ(cache.stored(layer), 66);
  }
  const tessera::Run& run = cache.runs(0)[0];
  EXPECT_EQ(run.Positions(), kept);
  EXPECT_EQ(run.pages[0], before[0]);
  EXPECT_EQ(arena.RefCount(before[0]), 2);
  EXPECT_EQ(arena.RefCount(before[1]), 1);
  EXPECT_EQ(cache.evicted().vision, 3 * 2);
  EXPECT_EQ(cache.evicted().text, 3 * 2);
  // It continues at its position and can be shrunk without a move.
  ASSERT_TRUE(cache.Extend(30));
  memory.Write(cache, 1, 70, 30);
  memory.Verify(cache, 1);
  std::vector<MoveBatch> none;
  ASSERT_TRUE(cache.Evict(0, All(80), {}, &none));
  ASSERT_TRUE(cache.Evict(1, All(96), {}, &none));  // everything stays
  EXPECT_TRUE(none.empty());
  EXPECT_EQ(cache.retired().size(), 1u);
  cache.FinishMoves();
  memory.Verify(cache, 1);
  EXPECT_EQ(cache.stored(0), 80);
  EXPECT_EQ(cache.stored(1), 96);
  for (const PageId page : before) arena.Unref(page);
  EXPECT_TRUE(AuditCache(arena, nullptr, {&cache}).ok());
}

TEST(SequenceMoves, EvictionInAFullArenaFailsCleanly) {
  Arena arena(kSlabBytes, kGeometry);
  SequenceCache cache(&arena);
  ASSERT_TRUE(cache.Extend(21 * 16));  // 63 of 64 pages
  const auto before = State(cache);
  const std::vector<int32_t> all = All(21 * 16);
  std::vector<MoveBatch> moves;
  EXPECT_FALSE(cache.Evict(0, absl::MakeConstSpan(all).subspan(1), {}, &moves));
  EXPECT_TRUE(moves.empty());
  EXPECT_EQ(State(cache), before);
  EXPECT_EQ(cache.stored(0), 21 * 16);
  EXPECT_EQ(arena.used_bytes(), cache.bytes());
  EXPECT_TRUE(AuditCache(arena, nullptr, {&cache}).ok());
  EXPECT_TRUE(cache.Evict(0, absl::MakeConstSpan(all).last(16), {}, &moves));
  cache.FinishMoves();
  EXPECT_TRUE(AuditCache(arena, nullptr, {&cache}).ok());
}

TEST(SequenceMoves, SharedPagesAreReadAndLetGo) {
  Arena arena(8 * kSlabBytes, kGeometry);
  SequenceCache first(&arena), second(&arena);
  FakeMemory memory;
  ASSERT_TRUE(first.Extend(100));
  memory.Write(first, 1, 0, 100);
  std::vector<std::vector<PageId>> prefix;
  for (int layer = 0; layer < 3; ++layer) {
    const std::vector<PageId>& pages = first.runs(layer)[0].pages;
    prefix.emplace_back(pages.begin(), pages.begin() + 5);
  }
  second.AdoptPrefix(prefix, 80);
  ASSERT_TRUE(second.Extend(20));
  memory.Write(second, 1, 80, 20);  // equal tokens: the contents are the first one's
  CommitAll(second, Uniform(Format::kKivi2, 16), memory, arena);
  memory.Verify(first, 1);
  memory.Verify(second, 1);
  for (const std::vector<PageId>& pages : prefix) {
    for (const PageId page : pages) EXPECT_EQ(arena.RefCount(page), 1);
  }
  EXPECT_TRUE(AuditCache(arena, nullptr, {&first, &second}).ok());
  // 84 tokens are older than the window: two pages of 32; the other 20 wait in the open run.
  ASSERT_EQ(second.runs(0).size(), 2u);
  EXPECT_EQ(second.runs(0)[0].tokens, 64);
  EXPECT_EQ(second.runs(0)[1].tokens, 36);
}

TEST(SequenceMoves, LogicalPositionsSurviveEviction) {
  Arena arena(8 * kSlabBytes, kGeometry);
  SequenceCache cache(&arena);
  FakeMemory memory;
  ASSERT_TRUE(cache.Extend(50));
  memory.Write(cache, 1, 0, 50);
  std::vector<MoveBatch> moves;
  const std::vector<int32_t> kept[] = {{0, 7, 8, 30, 49}, {}, All(50)};
  for (int layer = 0; layer < 3; ++layer) {
    ASSERT_TRUE(cache.Commit(layer, kept[layer], {}, LayerStorage(), &moves));
  }
  memory.Run(moves, arena);
  cache.FinishMoves();
  EXPECT_EQ(cache.length(), 50);
  EXPECT_TRUE(cache.runs(1).empty());
  ASSERT_TRUE(cache.Extend(20));  // lengths differ by layer, the next position does not
  memory.Write(cache, 1, 50, 20);
  memory.Verify(cache, 1);
  EXPECT_EQ(cache.runs(0)[0].tokens, 25);
  EXPECT_EQ(cache.runs(1)[0].tokens, 20);
  EXPECT_EQ(cache.runs(2)[0].tokens, 70);
  EXPECT_EQ(cache.SlotOf(0, 30).slot, 3u);
  EXPECT_EQ(cache.SlotOf(0, 50).slot, 5u);
  EXPECT_DEATH(cache.SlotOf(0, 31), "check failed");
  EXPECT_EQ(cache.evicted().text, 45 + 50);
  cache.Shrink(20);
  EXPECT_TRUE(cache.runs(1).empty());
  EXPECT_DEATH(cache.Shrink(1), "check failed");  // nothing of the prompt can be taken back
  EXPECT_TRUE(AuditCache(arena, nullptr, {&cache}).ok());
}

TEST(SequenceMoves, MisuseIsACheck) {
  Arena arena(8 * kSlabBytes, kGeometry);
  SequenceCache cache(&arena);
  FakeMemory memory;
  ASSERT_TRUE(cache.Extend(100));
  memory.Write(cache, 1, 0, 100);
  std::vector<MoveBatch> moves;
  const LayerStorage storage = Uniform(Format::kToken4, 0);
  const std::vector<int32_t> unordered = {3, 2}, beyond = {100};
  EXPECT_DEATH(cache.Commit(0, unordered, {}, storage, &moves), "check failed");
  EXPECT_DEATH(cache.Commit(0, beyond, {}, storage, &moves), "check failed");
  const LayerStorage mixed = {Format::kKivi2, Format::kToken2, {}, {}, 0};
  EXPECT_DEATH(cache.Commit(0, All(100), {}, mixed, &moves), "check failed");
  CommitAll(cache, storage, memory, arena);
  EXPECT_DEATH(cache.Commit(0, All(100), {}, storage, &moves), "check failed");
}

TEST(SequenceMoves, MeanBitsCountMetadata) {
  const auto mean_bits = [](Format format, int tokens, int window) {
    Arena arena(8 * kSlabBytes, kGeometry);
    SequenceCache cache(&arena);
    FakeMemory memory;
    EXPECT_TRUE(cache.Extend(tokens));
    memory.Write(cache, 1, 0, tokens);
    CommitAll(cache, Uniform(format, window), memory, arena);
    return cache.MeanBits();
  };
  EXPECT_EQ(mean_bits(Format::kRaw16, 100, 0), 16);
  EXPECT_EQ(mean_bits(Format::kToken8, 100, 0), 8.25);  // 2 halves a token of 128 values
  EXPECT_EQ(mean_bits(Format::kToken4, 100, 0), 4.25);
  EXPECT_EQ(mean_bits(Format::kToken2, 100, 0), 2.25);
  EXPECT_EQ(mean_bits(Format::kToken1, 100, 0), 1.25);
  EXPECT_EQ(mean_bits(Format::kKivi2, 96, 0), 2.625);  // K 2 + 32 / 32, V 2 + 32 / 128
  EXPECT_DOUBLE_EQ(mean_bits(Format::kToken2, 620, 128), (16 * 128 + 2.25 * 492) / 620);
  Arena arena(kSlabBytes, kGeometry);
  EXPECT_EQ(SequenceCache(&arena).MeanBits(), 0);
}

}  // namespace
}  // namespace tessera
