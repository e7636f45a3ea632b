// Runs the prefix cache under random traffic and compares it after every operation with a model.
// The model knows only the contract and recomputes what is idle and what must be evicted next.
#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "cache/audit.h"
#include "cache/prefix_cache.h"
#include "cache/sequence_cache.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

class Model {
 public:
  explicit Model(int layers) : layers_(layers) {}

  void Insert(const std::vector<Digest>& keys, int i, const std::vector<PageId>& pages) {
    if (blocks_.count(keys[i]) > 0) return;
    if (i > 0 && blocks_.count(keys[i - 1]) == 0) return;
    blocks_[keys[i]] = {i > 0 ? keys[i - 1] : Digest{}, i, pages, 0};
  }
  // Recomputes which blocks are idle. Blocks that just became idle count as used now, the deepest
  // first.
  void Update(const std::multiset<PageId>& held) {
    std::set<Digest> pinned;
    for (const auto& [key, block] : blocks_) {
      const bool shared = std::any_of(block.pages.begin(), block.pages.end(),
                                      [&](PageId page) { return held.count(page) > 0; });
      if (!shared) continue;
      Digest above = key;
      for (int depth = block.depth; depth >= 0; --depth) {
        pinned.insert(above);
        above = blocks_[above].parent;
      }
    }
    std::vector<std::pair<int, Digest>> newly;
    std::set<Digest> idle;
    for (const auto& [key, block] : blocks_) {
      if (pinned.count(key) > 0) continue;
      idle.insert(key);
      if (idle_.count(key) == 0) newly.emplace_back(-block.depth, key);
    }
    std::sort(newly.begin(), newly.end());
    for (const auto& [depth, key] : newly) blocks_[key].used = ++now_;
    idle_ = std::move(idle);
  }
  int Find(const std::vector<Digest>& keys, int max_blocks) {
    int blocks = 0;
    while (blocks < std::min<int>(max_blocks, keys.size()) && blocks_.count(keys[blocks]) > 0) {
      ++blocks;
    }
    for (int i = blocks; i-- > 0;) {
      if (idle_.count(keys[i]) > 0) blocks_[keys[i]].used = ++now_;
    }
    return blocks;
  }
  int64_t Reclaim(int64_t pages) {
    int64_t freed = 0;
    for (; freed < pages && !idle_.empty(); freed += layers_) {
      std::set<Digest> parents;
      for (const auto& [key, block] : blocks_) {
        if (block.depth > 0) parents.insert(block.parent);
      }
      const Digest* victim = nullptr;
      for (const Digest& key : idle_) {
        if (parents.count(key) > 0) continue;
        if (victim == nullptr || blocks_[key].used < blocks_[*victim].used) victim = &key;
      }
      blocks_.erase(*victim);
      idle_.erase(*victim);
    }
    return freed;
  }
  void Clear() {
    blocks_.clear();
    idle_.clear();
  }
  int64_t idle_pages() const { return static_cast<int64_t>(idle_.size()) * layers_; }
  bool IsIdle(const Digest& key) const { return idle_.count(key) > 0; }
  std::set<PageId> Pages() const {
    std::set<PageId> pages;
    for (const auto& [key, block] : blocks_) pages.insert(block.pages.begin(), block.pages.end());
    return pages;
  }

 private:
  struct Block {
    Digest parent;
    int depth;
    std::vector<PageId> pages;
    int64_t used;
  };
  int layers_;
  int64_t now_ = 0;
  std::map<Digest, Block> blocks_;
  std::set<Digest> idle_;
};

// Random traffic on a prefix cache and on its model.
class Traffic {
 public:
  explicit Traffic(uint64_t seed)
      : arena_(3 * kSlabBytes, kGeometry),  // 96 blocks of 2 pages
        index_(&arena_),
        model_(kGeometry.layers),
        random_(seed) {}

  void Run(int operations) {
    for (int op = 0; op < operations; ++op) {
      const uint64_t draw = random_() % 100;
      if (draw < 50) {
        Start();
      } else if (draw < 90) {
        if (live_.empty()) continue;
        std::swap(live_[random_() % live_.size()], live_.back());
        live_.pop_back();
      } else if (draw < 99) {
        Reclaim(static_cast<int64_t>(random_() % 20));
      } else if (random_() % 4 == 0) {
        index_.Clear();
        model_.Clear();
      }
      model_.Update(Held());
      Check();
      if (testing::Test::HasFatalFailure()) return;
    }
    EXPECT_GT(adopted_, operations / 4);
    EXPECT_GT(reclaimed_, operations / 4);
    EXPECT_GT(refused_, 0);
    live_.clear();
    EXPECT_EQ(index_.reclaimable_pages(), arena_.pages_in_use(Format::kRaw16));
    index_.Clear();
    EXPECT_EQ(arena_.slab_used_bytes(), 0);
  }

 private:
  static constexpr KvGeometry kGeometry = {2, 4, 128};

  std::multiset<PageId> Held() const {
    std::multiset<PageId> pages;
    for (const SequenceCache& s : live_) {
      for (int layer = 0; layer < s.layers(); ++layer) {
        for (const tessera::Run& run : s.runs(layer)) {
          pages.insert(run.pages.begin(), run.pages.end());
        }
      }
    }
    return pages;
  }
  void Reclaim(int64_t pages) {
    const int64_t freed = index_.Reclaim(pages);
    ASSERT_EQ(freed, model_.Reclaim(pages));
    reclaimed_ += freed;
  }
  // Starts a sequence of 1 to 160 tokens. Each of up to 10 blocks is one of two: many prompts
  // share beginnings.
  void Start() {
    std::vector<PrefixToken> tokens(1 + random_() % 160);
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i].id = static_cast<int32_t>(i % 16 == 0 ? random_() % 2 : i);
    }
    const auto keys = BlockKeys(PrefixRoot("m", random_() % 4 == 0 ? "tenant" : ""), tokens);
    live_.emplace_back(&arena_);
    SequenceCache& mine = live_.back();
    if (random_() % 5 != 0) {  // the others started before the prefix was known
      Adopt(keys, static_cast<int>(tokens.size() - 1) / kBlockTokens, mine);
    }
    model_.Update(Held());
    const int rest = static_cast<int>(tokens.size()) - mine.length();
    const int64_t needed = mine.PagesToExtend(rest) - arena_.available_pages(Format::kRaw16);
    if (needed > 0) Reclaim(needed);
    if (!mine.Extend(rest)) {
      ++refused_;
      live_.pop_back();
      return;
    }
    if (random_() % 6 == 0) return;  // bypasses the prefix cache
    for (size_t i = 0; i < keys.size(); ++i) {
      std::vector<PageId> pages;
      for (int layer = 0; layer < kGeometry.layers; ++layer) {
        pages.push_back(mine.runs(layer)[0].pages[i]);
      }
      EXPECT_TRUE(index_.Insert(keys, static_cast<int>(i), pages));
      model_.Insert(keys, static_cast<int>(i), pages);
    }
  }
  void Adopt(const std::vector<Digest>& keys, int max_blocks, SequenceCache& sequence) {
    int64_t idle_pages = 0, expected_idle = 0;
    const int peeked = index_.Peek(keys, max_blocks, &idle_pages);
    for (int i = 0; i < peeked; ++i) expected_idle += model_.IsIdle(keys[i]) * kGeometry.layers;
    EXPECT_EQ(idle_pages, expected_idle);
    const int64_t before = index_.reclaimable_pages();
    const auto match = index_.Find(keys, max_blocks);
    EXPECT_EQ(match.blocks, model_.Find(keys, max_blocks));
    EXPECT_EQ(match.blocks, peeked);
    sequence.AdoptPrefix(match.pages, match.blocks * kBlockTokens);
    EXPECT_EQ(index_.reclaimable_pages(), before - idle_pages);
    adopted_ += match.blocks;
  }
  void Check() const {
    ASSERT_EQ(index_.reclaimable_pages(), model_.idle_pages());
    const auto pages = index_.AllPages();
    ASSERT_EQ(std::set<PageId>(pages.begin(), pages.end()), model_.Pages());
    std::vector<const SequenceCache*> all;
    for (const SequenceCache& s : live_) all.push_back(&s);
    const absl::Status status = AuditCache(arena_, &index_, all);
    ASSERT_TRUE(status.ok()) << status;
  }

  Arena arena_;
  PrefixCache index_;
  Model model_;
  std::mt19937_64 random_;
  std::vector<SequenceCache> live_;
  int64_t adopted_ = 0, reclaimed_ = 0, refused_ = 0;
};

TEST(PrefixCacheModel, RandomTrafficAgrees) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    Traffic(seed).Run(1500);
    if (testing::Test::HasFailure()) break;
  }
}

}  // namespace
}  // namespace tessera
