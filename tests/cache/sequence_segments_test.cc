// Commit of images into formats with header pages, and the storage rules that come with them.
#include <limits>
#include <vector>

#include "cache/audit.h"
#include "cache/sequence_cache.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cache/fake_moves.h"

namespace tessera {
namespace {

constexpr KvGeometry kGeometry = kMovesGeometry;

// Images, and text at 16 bit.
LayerStorage Segments(Format format) {
  LayerStorage storage;
  storage.vision = format;
  storage.vision_rule = {.clip_k = 0.5f, .clip_v = 0.3f};
  storage.vision_map = {.lower = 3};
  return storage;
}

// t5 v40 v33 t2 v1
std::vector<uint8_t> ThreeImages() {
  std::vector<uint8_t> vision(5, 0);
  vision.insert(vision.end(), 40, 1);
  vision.insert(vision.end(), 33, 2);
  vision.insert(vision.end(), 2, 0);
  vision.push_back(1);
  return vision;
}

TEST(SequenceSegments, EveryImageHasARunAndAHeader) {
  Arena arena(8 * kSlabBytes, kGeometry);
  SequenceCache cache(&arena);
  FakeMemory memory;
  const std::vector<uint8_t> vision = ThreeImages();
  ASSERT_TRUE(cache.Extend(81));
  memory.Write(cache, 1, 0, 81);
  std::vector<int32_t> some = All(81);  // layer 2: without the second image's first 30
  some.erase(some.begin() + 45, some.begin() + 75);
  for (int layer = 0; layer < 3; ++layer) {
    std::vector<MoveBatch> moves;
    ASSERT_TRUE(cache.Commit(layer, layer == 2 ? some : All(81), vision,
                             Segments(Format::kSegment1), &moves));
    memory.Run(moves, arena);
    cache.FinishMoves();
    const std::vector<tessera::Run>& runs = cache.runs(layer);
    ASSERT_EQ(runs.size(), 4u);
    const std::pair<int, int> images[] = {
        {5, 40}, {layer == 2 ? 75 : 45, layer == 2 ? 3 : 33}, {80, 1}};
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(runs[i].format, Format::kSegment1);
      EXPECT_EQ(runs[i].Position(0), images[i].first);
      EXPECT_EQ(runs[i].tokens, images[i].second);
      EXPECT_EQ(arena.FormatOf(runs[i].header), Format::kHeader);
      EXPECT_EQ(runs[i].map.lower, 3);
    }
    EXPECT_TRUE(runs[3].open);
    EXPECT_THAT(runs[3].Positions(), testing::ElementsAre(0, 1, 2, 3, 4, 78, 79));
    EXPECT_TRUE(runs[3].map.identity());
    EXPECT_EQ(runs[3].header, kNoPage);
    EXPECT_EQ(cache.TokensToExit(layer, Segments(Format::kSegment1)),
              std::numeric_limits<int>::max());
  }
  memory.Verify(cache, 1);
  EXPECT_EQ(arena.pages_in_use(Format::kHeader), 9);
  EXPECT_EQ(cache.pages(), 9 + (2 + 2 + 1) * 3 - 1 + 3);
  EXPECT_EQ(cache.bytes(), arena.used_bytes());
  // 1 bit a value, 2 x 16 a channel of an image; in the last layer 3 tokens carry a header too.
  const double values = 2 * 4 * 128, header = 8 * 4 * 8 * 128;
  const double bits = (74 + 74 + 44) * values + 9 * header + 21 * 16 * values;
  EXPECT_DOUBLE_EQ(cache.MeanBits(), bits / ((81 + 81 + 51) * values));
  EXPECT_TRUE(AuditCache(arena, nullptr, {&cache}).ok());

  ASSERT_TRUE(cache.Extend(60));  // the answer: text, which never leaves
  memory.Write(cache, 1, 81, 60);
  std::vector<MoveBatch> moves;
  for (int layer = 0; layer < 3; ++layer) {
    ASSERT_TRUE(cache.ExitWindow(layer, vision, Segments(Format::kSegment1), &moves));
    EXPECT_EQ(cache.runs(layer).back().tokens, 67);
  }
  EXPECT_TRUE(moves.empty());
  memory.Verify(cache, 1);

  SequenceCache other = std::move(cache);
  EXPECT_TRUE(AuditCache(arena, nullptr, {&other}).ok());
  other.Release();
  EXPECT_EQ(arena.used_bytes(), 0);
  EXPECT_EQ(arena.slab_used_bytes(), 0);
}

TEST(SequenceSegments, AHeaderWithoutRoomUndoesTheCommit) {
  Arena arena(3 * kSlabBytes, kGeometry);
  SequenceCache cache(&arena);
  const std::vector<uint8_t> vision = ThreeImages();
  ASSERT_TRUE(cache.Extend(81));
  const PageId other =
      arena.Allocate(Format::kToken8);  // leaves a slab for codes, none for headers
  const auto before = State(cache);
  const int64_t used = arena.used_bytes();
  std::vector<MoveBatch> moves;
  EXPECT_FALSE(cache.Commit(0, All(81), vision, Segments(Format::kSegment4), &moves));
  EXPECT_TRUE(moves.empty());
  EXPECT_EQ(State(cache), before);
  EXPECT_EQ(arena.used_bytes(), used);
  EXPECT_TRUE(cache.CheckIntegrity().ok());
  arena.Unref(other);
  EXPECT_TRUE(cache.Commit(0, All(81), vision, Segments(Format::kSegment4), &moves));
  EXPECT_TRUE(AuditCache(arena, nullptr, {&cache}).ok());
}

TEST(SequenceSegments, WhatAStorageCannotBe) {
  const auto valid = [](Format text, Format vision, int window, LogitMap map = {}) {
    LayerStorage storage = {text, vision, {}, {}, window};
    storage.vision_map = map;
    return storage.Valid();
  };
  EXPECT_TRUE(valid(Format::kRaw16, Format::kSegment1, 0, {.lower = 3}));
  EXPECT_TRUE(valid(Format::kRaw16, Format::kToken2, 0));
  EXPECT_FALSE(valid(Format::kRaw16, Format::kToken2, 32));    // text never leaves the window
  EXPECT_FALSE(valid(Format::kRaw16, Format::kSegment1, 32));  // a segment leaves at once
  EXPECT_FALSE(valid(Format::kToken2, Format::kSegment1, 0));
  EXPECT_FALSE(valid(Format::kSegment1, Format::kSegment1, 0));
  EXPECT_FALSE(valid(Format::kRaw16, Format::kKivi2, 0));
  EXPECT_FALSE(valid(Format::kRaw16, Format::kHeader, 0));
  EXPECT_FALSE(valid(Format::kToken2, Format::kToken2, 0, {.lower = 3}));  // text as well
}

TEST(SequenceSegments, EmptyBatchesAreTakenAgainInOrder) {
  const QuantRule clipped = {.clip_k = .5f, .clip_v = .5f};
  std::vector<MoveBatch> batches;
  for (const Format format : {Format::kToken4, Format::kToken2}) {
    BatchFor(batches, format, {}).moves.resize(3);
  }
  BatchFor(batches, Format::kToken4, clipped).moves.resize(1);
  EXPECT_EQ(&BatchFor(batches, Format::kToken2, {}), &batches[1]);
  ASSERT_EQ(batches.size(), 3u);
  for (MoveBatch& batch : batches) batch.moves.clear();
  // Returns the first batch, although the second had this format.
  MoveBatch& first = BatchFor(batches, Format::kToken2, clipped);
  EXPECT_EQ(&first, &batches[0]);
  EXPECT_EQ(first.to, Format::kToken2);
  EXPECT_EQ(first.rule.clip_k, .5f);
  first.moves.resize(1);
  EXPECT_EQ(&BatchFor(batches, Format::kToken2, {}), &batches[1]);
  EXPECT_EQ(batches.size(), 3u);
}

TEST(SequenceSegments, SegmentsAreNumberedByImage) {
  EXPECT_TRUE(SegmentsOf({}).empty());
  const std::vector<uint8_t> vision = {0, 1, 1, 2, 0, 2, 2, 1};
  EXPECT_THAT(SegmentsOf(vision), testing::ElementsAre(-1, 0, 0, 1, 1, 2, 2, 3));
}

}  // namespace
}  // namespace tessera
