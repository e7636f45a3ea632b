// A fake KV memory: a slot stores which sequence's token it holds instead of keys and values. It
// executes MoveBatches, so that tests can prove that every token is where its cache says.
#pragma once

#include <cstdint>
#include <numeric>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "cache/sequence_cache.h"
#include "gtest/gtest.h"

namespace tessera {

class FakeMemory {
 public:
  // Stands in for the forward pass: writes tokens [first, first + count) of every layer as sequence
  // `id` computes them.
  void Write(const SequenceCache& cache, int id, int first, int count) {
    for (int layer = 0; layer < cache.layers(); ++layer) {
      for (int t = first; t < first + count; ++t) {
        slots_[Key(cache.SlotOf(layer, t))] = Content(id, layer, t);
      }
    }
  }

  // Executes the moves as Ops::MoveTokens does and checks its requirements.
  void Run(const std::vector<MoveBatch>& batches, const Arena& arena) {
    for (const MoveBatch& batch : batches) {
      const auto page_tokens = static_cast<uint32_t>(PageTokens(batch.to));
      ASSERT_FALSE(batch.moves.empty());
      ASSERT_TRUE(!FillsWholePages(batch.to) || batch.moves.size() % page_tokens == 0);
      std::unordered_map<PageId, bool> written;
      std::unordered_set<PageId> segments;
      for (const TokenMove& move : batch.moves) written[move.to.page] = true;
      for (size_t i = 0; i < batch.moves.size(); ++i) {
        const auto& [from, to, header] = batch.moves[i];
        ASSERT_EQ(header != kNoPage, HasHeader(batch.to));
        if (header != kNoPage) {
          ASSERT_EQ(arena.FormatOf(header), Format::kHeader);
          ASSERT_EQ(arena.RefCount(header), 1);
          const bool begins = i == 0 || batch.moves[i - 1].header != header;
          ASSERT_EQ(begins, segments.insert(header).second) << "a segment in two parts";
        }
        ASSERT_EQ(arena.FormatOf(from.page), Format::kRaw16);
        ASSERT_EQ(arena.FormatOf(to.page), batch.to);
        ASSERT_EQ(arena.RefCount(to.page), 1);
        ASSERT_FALSE(written.contains(from.page));
        ASSERT_LT(from.slot, 16u);
        ASSERT_LT(to.slot, page_tokens);
        if (FillsWholePages(batch.to)) {
          ASSERT_EQ(to.slot, i % page_tokens);
          ASSERT_EQ(to.page, batch.moves[i - to.slot].to.page);
        }
        const auto source = slots_.find(Key(from));
        ASSERT_NE(source, slots_.end()) << "reads what was never written";
        const int64_t content = source->second;
        slots_[Key(to)] = content;
      }
    }
  }

  // Checks that every slot in use holds the token that the cache says.
  void Verify(const SequenceCache& cache, int id) const {
    for (int layer = 0; layer < cache.layers(); ++layer) {
      for (const tessera::Run& run : cache.runs(layer)) {
        const int page_tokens = PageTokens(run.format);
        for (int i = 0; i < run.tokens; ++i) {
          const auto slot = slots_.find(
              Key({run.pages[i / page_tokens], static_cast<uint32_t>(i % page_tokens)}));
          ASSERT_NE(slot, slots_.end());
          ASSERT_EQ(slot->second, Content(id, layer, run.Position(i)))
              << "layer " << layer << " " << FormatName(run.format) << " token " << i;
        }
      }
    }
  }

 private:
  static uint64_t Key(const KvSlot& slot) { return uint64_t{slot.page} * 64 + slot.slot; }
  static int64_t Content(int id, int layer, int token) {
    return (int64_t{id} * 1000 + layer) * 1000000 + token;
  }
  std::unordered_map<uint64_t, int64_t> slots_;
};

inline constexpr KvGeometry kMovesGeometry = {3, 4, 128};  // 64 RAW16 pages a slab

// Returns 0 .. tokens - 1.
inline std::vector<int32_t> All(int tokens) {
  std::vector<int32_t> all(tokens);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

// A snapshot of what a cache holds, to check that nothing changed.
inline std::vector<std::tuple<Format, std::vector<PageId>, std::vector<int32_t>, bool>> State(
    const SequenceCache& cache) {
  std::vector<std::tuple<Format, std::vector<PageId>, std::vector<int32_t>, bool>> state;
  for (int layer = 0; layer < cache.layers(); ++layer) {
    for (const Run& run : cache.runs(layer)) {
      state.emplace_back(run.format, run.pages, run.Positions(), run.open);
    }
  }
  return state;
}

}  // namespace tessera
