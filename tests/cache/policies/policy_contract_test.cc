// Tests the contract of every policy: every entry of the table, every legal composition of two, and
// prompts of many shapes. Each runs from the first token to the last on a memory that only tracks
// tokens.
#include <algorithm>
#include <string>
#include <vector>

#include "base/base.h"
#include "cache/audit.h"
#include "cache/policies/registry.h"
#include "cache/policy/policy.h"
#include "cache/sequence_cache.h"
#include "gtest/gtest.h"
#include "tests/cache/fake_moves.h"
#include "tests/cache/policies/policy_cases.h"

namespace tessera {
namespace {

using policy_cases::AllPolicies;
using policy_cases::Attention;
using policy_cases::kGeometries;
using policy_cases::Parse;
using policy_cases::Prompt;
using policy_cases::Prompts;
using policy_cases::Statistics;

// One sequence from its first token to its release.
class Life {
 public:
  Life(const Policy& policy, const std::vector<uint8_t>& vision, const KvGeometry& geometry)
      : policy_(policy),
        vision_(vision),
        prompt_{vision_},
        geometry_(geometry),
        arena_(64 * kSlabBytes, geometry),
        cache_(&arena_) {}

  void Prefill() {
    for (int first = 0; first < prompt_.tokens(); first += 200) Add(std::min(200, left(first)));
  }

  void Commit() {
    const Statistics statistics(policy_.needs(), prompt_, geometry_);
    selection_ = policy_.Select(prompt_, statistics.layers(), geometry_);
    pivots_ = policy_.Pivots(selection_, statistics.layers());
    for (int layer = 0; layer < geometry_.layers; ++layer) {
      std::vector<MoveBatch> moves;
      ASSERT_TRUE(cache_.Commit(layer, selection_[layer], vision_, policy_.Layer(layer), &moves,
                                pivots_[layer]));
      Finish(moves);
      std::vector<float>& sums = sums_.emplace_back();
      if (!policy_.needs().attention_steps) continue;
      for (const int32_t t : selection_[layer])
        sums.push_back(statistics.layers()[layer].columns[t]);
    }
    held_ = selection_;
  }

  int64_t limit() const { return policy_.TokenLimit(prompt_, geometry_); }

  void Decode(int tokens) {
    const int first = cache_.length();
    Add(tokens);
    for (int layer = 0; layer < geometry_.layers; ++layer) {
      for (int t = first; t < first + tokens; ++t) held_[layer].push_back(t);
      if (limit() == 0) continue;
      sums_[layer].resize(held_[layer].size());
      for (int row = first; row < first + tokens; ++row) {
        for (size_t i = 0; i < held_[layer].size() && held_[layer][i] <= row; ++i) {
          sums_[layer][i] += Attention(layer, row, held_[layer][i]);
        }
      }
      if (cache_.stored(layer) >= limit() + kEvictTokens) Evict(layer);
    }
    std::vector<MoveBatch> moves;
    for (int layer = 0; layer < geometry_.layers; ++layer) {
      ASSERT_TRUE(cache_.ExitWindow(layer, vision_, policy_.Layer(layer), &moves));
    }
    Finish(moves);
  }

  // Checks everything that must hold after the commit and after every step.
  void Check() {
    memory_.Verify(cache_, 1);
    const absl::Status audit = AuditCache(arena_, nullptr, {&cache_});
    ASSERT_TRUE(audit.ok()) << audit;
    const int outputs = cache_.length() - prompt_.tokens();
    ASSERT_EQ(cache_.bytes(), arena_.used_bytes());
    CheckBytes(policy_.SteadyBytes(prompt_, outputs, geometry_));
    EvictedTokens evicted;
    for (int layer = 0; layer < geometry_.layers; ++layer) {
      CheckLayer(layer);
      std::vector<bool> kept(cache_.length());
      for (const int32_t t : held_[layer]) kept[t] = true;
      for (int t = 0; t < cache_.length(); ++t) {
        if (kept[t]) continue;
        ++(t < prompt_.tokens() && vision_[t] != 0 ? evicted.vision : evicted.text);
      }
    }
    ASSERT_EQ(cache_.evicted().text, evicted.text);
    ASSERT_EQ(cache_.evicted().vision, evicted.vision);
  }

  void CheckPeak() const {
    const int outputs = cache_.length() - prompt_.tokens();
    const int64_t peak =
        policy_.PeakBytes(prompt_, outputs, geometry_) - policy_.SlabHeadroom(geometry_);
    if (policy_.needs().any()) {
      EXPECT_LE(peak_, peak);
    } else {
      EXPECT_EQ(peak_, peak);
    }
  }

  SequenceCache& cache() { return cache_; }
  const Arena& arena() const { return arena_; }

 private:
  int left(int first) const { return prompt_.tokens() - first; }
  void Add(int tokens) {
    const int first = cache_.length();
    ASSERT_TRUE(cache_.Extend(tokens));
    memory_.Write(cache_, 1, first, tokens);
    peak_ = std::max(peak_, arena_.used_bytes());
  }
  void Finish(const std::vector<MoveBatch>& moves) {
    peak_ = std::max(peak_, arena_.used_bytes());
    memory_.Run(moves, arena_);
    cache_.FinishMoves();
  }

  void Evict(int layer) {
    const std::vector<int32_t> kept = policy_.Keep(sums_[layer], limit());
    ASSERT_EQ(std::ssize(kept), limit());
    ASSERT_TRUE(std::is_sorted(kept.begin(), kept.end(), std::less_equal<>()));
    ASSERT_TRUE(kept.front() >= 0 && kept.back() < std::ssize(held_[layer]));
    std::vector<MoveBatch> moves;
    ASSERT_TRUE(cache_.Evict(layer, kept, vision_, &moves));
    Finish(moves);
    for (size_t i = 0; i < kept.size(); ++i) {
      held_[layer][i] = held_[layer][kept[i]];
      sums_[layer][i] = sums_[layer][kept[i]];
    }
    held_[layer].resize(kept.size());
    sums_[layer].resize(kept.size());
  }

  void CheckBytes(int64_t steady) {
    if (!policy_.needs().any()) {
      ASSERT_EQ(cache_.bytes(), steady);
      return;
    }
    ASSERT_LE(cache_.bytes(), steady);
    int64_t slack = 0;
    for (int layer = 0; layer < geometry_.layers; ++layer) {
      const LayerStorage storage = policy_.Layer(layer);
      // If layers differ in tokens and formats, the bound may count all tokens where they cost the
      // most.
      if ((policy_.needs().low_pass || policy_.needs().attention_rows > 0) && !storage.raw())
        return;
      slack += PageBytes(Format::kRaw16, geometry_) * CeilDiv(policy_.MaxPivots(layer), 16);
      slack += PageBytes(storage.text, geometry_);
    }
    ASSERT_LE(steady - cache_.bytes(), slack);
  }

  // Checks the window's invariant, and that every kept token is stored exactly once in its class's
  // format. A run with a header must hold all kept tokens of one image and nothing else.
  void CheckLayer(int layer) {
    const std::vector<int32_t>& expected = held_[layer];
    std::vector<int32_t> stored;
    const LayerStorage storage = policy_.Layer(layer);
    int open = 0;
    for (const Run& run : cache_.runs(layer)) {
      const std::vector<int32_t> positions = run.Positions();
      stored.insert(stored.end(), positions.begin(), positions.end());
      if (run.open) {
        open = run.tokens;
        if (!storage.exits()) {  // all text, and vision only if it is at 16 bit too
          for (const int32_t t : positions) {
            ASSERT_EQ(storage.FormatOf(ClassAt(vision_, t)), Format::kRaw16);
          }
          continue;
        }
        // The window has the newest tokens, so all others are older.
        ASSERT_TRUE(std::equal(positions.rbegin(), positions.rend(), expected.rbegin()));
        continue;
      }
      if (HasHeader(run.format)) {
        const std::vector<int32_t> segments = SegmentsOf(vision_);
        const int32_t segment = segments[run.Position(0)];
        std::vector<int32_t> image;
        for (const int32_t t : selection_[layer]) {
          if (segments[t] == segment && vision_[t] != 0) image.push_back(t);
        }
        ASSERT_EQ(positions, image);
        ASSERT_EQ(run.map.lower, storage.vision_map.lower);
      }
      for (const int32_t t : positions) {
        const bool pivot = std::binary_search(pivots_[layer].begin(), pivots_[layer].end(), t);
        ASSERT_EQ(run.format, pivot ? Format::kRaw16 : storage.FormatOf(ClassAt(vision_, t)));
      }
    }
    std::sort(stored.begin(), stored.end());
    ASSERT_EQ(stored, expected);
    ASSERT_LE(static_cast<int>(pivots_[layer].size()), policy_.MaxPivots(layer));
    const int total = static_cast<int>(expected.size());
    ASSERT_EQ(cache_.stored(layer), total);
    if (limit() > 0) {
      ASSERT_LT(total, limit() + kEvictTokens);
    }
    if (storage.raw()) {
      ASSERT_EQ(open, total);
    } else if (storage.exits()) {
      ASSERT_GE(open, std::min(total, storage.window));
      ASSERT_LT(open, storage.window + kExitTokens);
    }
  }

  const Policy& policy_;
  std::vector<uint8_t> vision_;
  PromptView prompt_;
  KvGeometry geometry_;
  Arena arena_;
  SequenceCache cache_;
  FakeMemory memory_;
  Selection selection_, pivots_;
  Selection held_;                        // [layer] the tokens that should be stored
  std::vector<std::vector<float>> sums_;  // [layer] their attention sums, if needed
  int64_t peak_ = 0;
};

class PolicyContract : public testing::TestWithParam<std::string> {};

TEST_P(PolicyContract, TextIsCanonical) {
  const auto policy = Parse(GetParam());
  EXPECT_EQ(Parse(policy->Text())->Text(), policy->Text());
}

TEST_P(PolicyContract, SelectionsAreInOrderAndRepeatable) {
  const auto policy = Parse(GetParam()), again = Parse(policy->Text());
  for (const std::vector<uint8_t>& vision : Prompts()) {
    const PromptView prompt = {vision};
    for (const KvGeometry& geometry : kGeometries) {
      const Statistics statistics(policy->needs(), prompt, geometry);
      const Selection selection = policy->Select(prompt, statistics.layers(), geometry);
      ASSERT_EQ(selection, again->Select(prompt, statistics.layers(), geometry));
      ASSERT_EQ(selection.size(), static_cast<size_t>(geometry.layers));
      for (const std::vector<int32_t>& kept : selection) {
        ASSERT_TRUE(std::is_sorted(kept.begin(), kept.end()));
        ASSERT_EQ(std::adjacent_find(kept.begin(), kept.end()), kept.end());
        ASSERT_EQ(kept.empty(), vision.empty());  // no policy drops everything
        ASSERT_TRUE(kept.empty() || (kept.front() >= 0 && kept.back() < prompt.tokens()));
        ASSERT_TRUE(policy->selects() || kept.size() == vision.size());
      }
    }
  }
}

TEST_P(PolicyContract, StorageIsValid) {
  const auto policy = Parse(GetParam());
  for (const KvGeometry& geometry : kGeometries) {
    EXPECT_TRUE(policy->CheckGeometry(geometry).ok());
    uint32_t seen = 1;
    for (int layer = 0; layer < geometry.layers; ++layer) {
      const LayerStorage storage = policy->Layer(layer);
      EXPECT_TRUE(storage.Valid());
      seen |= 1u << static_cast<int>(storage.text) | 1u << static_cast<int>(storage.vision);
      if (HasHeader(storage.vision)) seen |= 1u << static_cast<int>(Format::kHeader);
    }
    EXPECT_EQ(policy->FormatMask(geometry), seen);
  }
}

TEST_P(PolicyContract, EveryTokenLivesWhereItShouldFromPrefillToTheEnd) {
  const auto policy = Parse(GetParam());
  size_t which = 0;
  for (const std::vector<uint8_t>& vision : Prompts()) {
    const KvGeometry& geometry = kGeometries[which++ % std::size(kGeometries)];
    SCOPED_TRACE(testing::Message() << vision.size() << " tokens, head size " << geometry.head_dim);
    Life life(*policy, vision, geometry);
    life.Prefill();
    life.Commit();
    life.Check();
    life.CheckPeak();
    for (int step = 1; step <= 110; ++step) {
      life.Decode(1);
      if (HasFatalFailure()) return;
      if (step % 11 == 0) {
        life.Check();
        life.CheckPeak();
      }
    }
    if (HasFailure()) return;
    life.cache().Release();
    ASSERT_EQ(life.arena().slab_used_bytes(), 0);
  }
}

// Preempts a sequence. It computes its prompt again, commits at the same boundary and replays its
// answer in steps as long as TokensToExit allows. Every token must then see the same runs as
// before.
TEST_P(PolicyContract, RecomputationFindsTheSameRuns) {
  const auto policy = Parse(GetParam());
  const std::vector<uint8_t> vision = Prompt({{'t', 20}, {'v', 130}, {'t', 41}});
  const KvGeometry& geometry = kGeometries[0];
  Life first(*policy, vision, geometry), second(*policy, vision, geometry);
  for (Life* life : {&first, &second}) {
    life->Prefill();
    life->Commit();
  }
  const auto closed = [&](Life& life) {
    std::vector<std::tuple<int, Format, std::vector<int32_t>>> runs;
    for (int layer = 0; layer < geometry.layers; ++layer) {
      for (const tessera::Run& run : life.cache().runs(layer)) {
        if (!run.open) runs.emplace_back(layer, run.format, run.Positions());
      }
    }
    return runs;
  };
  constexpr int kAnswer = 150;
  for (int done = 0; done < kAnswer;) {
    int step = kAnswer - done;
    for (int layer = 0; layer < geometry.layers; ++layer) {
      step = std::min(step, second.cache().TokensToExit(layer, policy->Layer(layer)));
    }
    if (const int64_t limit = second.limit(); limit > 0) {
      step = std::min(step, static_cast<int>(limit) + kEvictTokens - second.cache().stored(0));
    }
    ASSERT_GE(step, 1);
    for (int i = 0; i < step; ++i) {
      ASSERT_EQ(closed(first), closed(second));  // what token done + i reads
      first.Decode(1);
    }
    second.Decode(step);
    done += step;
    for (int layer = 0; layer < geometry.layers; ++layer) {
      ASSERT_EQ(first.cache().runs(layer).back().Positions(),
                second.cache().runs(layer).back().Positions());
    }
  }
  EXPECT_EQ(closed(first), closed(second));
  second.Check();
}

std::string NameOf(const testing::TestParamInfo<std::string>& info) {
  std::string name;
  for (const char c : info.param) {
    if (std::isalnum(static_cast<unsigned char>(c))) {
      name += c;
    } else if (!name.empty() && name.back() != '_') {
      name += '_';
    }
  }
  return name;
}
INSTANTIATE_TEST_SUITE_P(All, PolicyContract, testing::ValuesIn(AllPolicies()), NameOf);

}  // namespace
}  // namespace tessera
