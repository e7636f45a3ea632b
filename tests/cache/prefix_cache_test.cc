#include "cache/prefix_cache.h"

#include <set>
#include <string>
#include <vector>

#include "cache/audit.h"
#include "cache/sequence_cache.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

constexpr KvGeometry kGeometry = {2, 4, 128};

std::vector<PrefixToken> Text(int tokens, int32_t first = 0) {
  std::vector<PrefixToken> text(tokens);
  for (int i = 0; i < tokens; ++i) text[i].id = first + i;
  return text;
}
Digest DigestOf(absl::string_view text) { return Hasher().AddString(text).Finish(); }

TEST(BlockKeys, OnePerFullBlock) {
  const Digest root = PrefixRoot("m", "");
  EXPECT_EQ(BlockKeys(root, Text(0)).size(), 0u);
  EXPECT_EQ(BlockKeys(root, Text(15)).size(), 0u);
  EXPECT_EQ(BlockKeys(root, Text(16)).size(), 1u);
  EXPECT_EQ(BlockKeys(root, Text(47)).size(), 2u);
}

TEST(BlockKeys, AKeyDependsOnEverythingBeforeItAndNothingAfter) {
  const Digest root = PrefixRoot("m", "");
  const auto keys = BlockKeys(root, Text(64));
  for (int changed = 0; changed < 64; ++changed) {
    auto tokens = Text(64);
    tokens[changed].id += 1000;
    const auto other = BlockKeys(root, tokens);
    for (int block = 0; block < 4; ++block) {
      EXPECT_EQ(keys[block] == other[block], block < changed / 16) << changed << " " << block;
    }
  }
}

TEST(BlockKeys, ModelSaltImageAndOffsetSeparate) {
  const Digest cat = DigestOf("cat"), dog = DigestOf("dog");
  const auto with_image = [](const Digest* image, int offset) {
    auto tokens = Text(16);
    for (int i = 4; i < 12; ++i) tokens[i] = {32000, image, offset + i};
    return tokens;
  };
  auto same_id_as_text = with_image(&cat, 0);
  for (PrefixToken& token : same_id_as_text) token.image = nullptr;
  auto two_images = with_image(&cat, 0);
  two_images[11].image = &dog;

  std::set<Digest> keys;
  const auto add = [&keys](const Digest& root, const std::vector<PrefixToken>& tokens) {
    const auto block = BlockKeys(root, tokens);
    EXPECT_EQ(block.size(), 1u);
    EXPECT_TRUE(keys.insert(block[0]).second) << "two different prompts share a key";
  };
  // The border between model and salt must be unambiguous too.
  for (const auto& [model, salt] : std::vector<std::pair<std::string, std::string>>{
           {"m", ""}, {"m", "tenant"}, {"mt", "enant"}, {"", "m"}, {"m2", ""}}) {
    const Digest root = PrefixRoot(model, salt);
    add(root, Text(16));
    add(root, with_image(&cat, 0));
    add(root, with_image(&dog, 0));
    add(root, with_image(&cat, 1));
    add(root, same_id_as_text);
    add(root, two_images);
  }
  // Equal content under another pointer is the same.
  const Digest copy = cat;
  EXPECT_EQ(BlockKeys(PrefixRoot("m", ""), with_image(&cat, 0)),
            BlockKeys(PrefixRoot("m", ""), with_image(&copy, 0)));
}

class PrefixCacheTest : public testing::Test {
 protected:
  std::vector<Digest> Keys(int tokens, int32_t first = 0) {
    return BlockKeys(PrefixRoot("m", ""), Text(tokens, first));
  }
  std::vector<PageId> BlockPages(const SequenceCache& sequence, int block) {
    std::vector<PageId> pages;
    for (int layer = 0; layer < sequence.layers(); ++layer) {
      pages.push_back(sequence.runs(layer)[0].pages[block]);
    }
    return pages;
  }
  // Makes a sequence that computed `keys` from block `begin` on and registered them.
  void Fill(SequenceCache& sequence, const std::vector<Digest>& keys, int begin = 0) {
    const int blocks = static_cast<int>(keys.size());
    ASSERT_TRUE(sequence.Extend((blocks - begin) * kBlockTokens));
    for (int i = begin; i < blocks; ++i)
      ASSERT_TRUE(index.Insert(keys, i, BlockPages(sequence, i)));
  }
  void Audit(std::vector<const SequenceCache*> sequences) {
    const absl::Status status = AuditCache(arena, &index, sequences);
    ASSERT_TRUE(status.ok()) << status;
  }

  Arena arena{4 * kSlabBytes, kGeometry};
  PrefixCache index{&arena};
};

TEST_F(PrefixCacheTest, FindsTheLongestKnownChain) {
  SequenceCache sequence(&arena);
  const auto keys = Keys(64);
  Fill(sequence, keys);
  EXPECT_EQ(index.blocks(), 4);
  EXPECT_EQ(index.Find(keys, 100).blocks, 4);
  EXPECT_EQ(index.Find(keys, 3).blocks, 3);
  EXPECT_EQ(index.Find(keys, 0).blocks, 0);
  EXPECT_EQ(index.Find(keys, -1).blocks, 0);
  EXPECT_EQ(index.Peek(keys, 3), 3);
  const auto match = index.Find(keys, 2);
  ASSERT_EQ(match.pages.size(), 2u);
  for (int layer = 0; layer < 2; ++layer) {
    EXPECT_THAT(match.pages[layer], testing::ElementsAre(sequence.runs(layer)[0].pages[0],
                                                         sequence.runs(layer)[0].pages[1]));
  }
  auto half = Text(64);
  half[33].id = 999;
  EXPECT_EQ(index.Find(BlockKeys(PrefixRoot("m", ""), half), 100).blocks, 2);
  EXPECT_EQ(index.Find(BlockKeys(PrefixRoot("m", "other tenant"), Text(64)), 100).blocks, 0);
  EXPECT_EQ(index.Find({}, 100).blocks, 0);
}

TEST_F(PrefixCacheTest, SameIdsWithAnotherPictureNeverMatch) {
  const Digest cat = DigestOf("cat"), dog = DigestOf("dog");
  const auto prompt = [](const Digest* image) {
    auto tokens = Text(48);
    for (int i = 20; i < 40; ++i) tokens[i] = {32000, image, i - 20};
    return BlockKeys(PrefixRoot("m", ""), tokens);
  };
  SequenceCache sequence(&arena);
  Fill(sequence, prompt(&cat));
  EXPECT_EQ(index.Peek(prompt(&cat), 9), 3);
  EXPECT_EQ(index.Peek(prompt(&dog), 9), 1);  // the text before the picture
}

TEST_F(PrefixCacheTest, PagesOfLiveSequencesAreNotReclaimable) {
  const auto keys = Keys(64);
  SequenceCache first(&arena);
  Fill(first, keys);
  EXPECT_EQ(index.reclaimable_pages(), 0);
  EXPECT_EQ(index.Reclaim(100), 0);
  first.Release();
  EXPECT_EQ(index.reclaimable_pages(), 8);

  SequenceCache second(&arena);
  int64_t idle_pages = -1;
  EXPECT_EQ(index.Peek(keys, 2, &idle_pages), 2);
  EXPECT_EQ(idle_pages, 4);
  const auto match = index.Find(keys, 2);
  second.AdoptPrefix(match.pages, match.blocks * kBlockTokens);
  EXPECT_EQ(index.reclaimable_pages(), 4);
  EXPECT_EQ(index.Peek(keys, 4, &idle_pages), 4);
  EXPECT_EQ(idle_pages, 4);
  Audit({&second});
  EXPECT_EQ(index.Reclaim(100), 4);
  EXPECT_EQ(index.blocks(), 2);
  EXPECT_EQ(index.Peek(keys, 4), 2);
  second.Release();
  EXPECT_EQ(index.Reclaim(100), 4);
  EXPECT_EQ(arena.used_bytes(), 0);
}

TEST_F(PrefixCacheTest, ABlockOfAFewSharedLayersIsPinned) {
  const auto keys = Keys(16);
  SequenceCache sequence(&arena);
  Fill(sequence, keys);
  const PageId page = BlockPages(sequence, 0)[1];
  arena.Ref(page);
  sequence.Release();  // only the cache holds layer 0's page now; layer 1's is shared
  EXPECT_EQ(index.reclaimable_pages(), 0);
  EXPECT_EQ(index.Reclaim(1), 0);
  arena.Unref(page);
  EXPECT_EQ(index.Reclaim(1), 2);  // whole blocks
}

TEST_F(PrefixCacheTest, ReclaimsLeastRecentlyUsedFirstAndChildrenBeforeParents) {
  const auto a = Keys(48), b = Keys(32, 100);
  for (const auto* keys : {&a, &b}) {
    SequenceCache sequence(&arena);
    Fill(sequence, *keys);
  }
  EXPECT_EQ(index.Reclaim(1), 2);  // a was released first; its leaf goes
  EXPECT_EQ(index.Peek(a, 9), 2);
  index.Find(a, 9);  // now b is the older one
  EXPECT_EQ(index.Reclaim(2), 2);
  EXPECT_EQ(index.Peek(b, 9), 1);
  EXPECT_EQ(index.Reclaim(3), 4);  // b's root, then a's leaf
  EXPECT_EQ(index.Peek(b, 9), 0);
  EXPECT_EQ(index.Peek(a, 9), 1);
  index.Peek(a, 9);
  Audit({});
}

TEST_F(PrefixCacheTest, PeekChangesNoOrder) {
  const auto a = Keys(16), b = Keys(16, 100);
  for (const auto* keys : {&a, &b}) {
    SequenceCache sequence(&arena);
    Fill(sequence, *keys);
  }
  index.Peek(a, 9);
  EXPECT_EQ(index.Reclaim(1), 2);
  EXPECT_EQ(index.Peek(a, 9), 0);
  EXPECT_EQ(index.Peek(b, 9), 1);
}

TEST_F(PrefixCacheTest, AKnownKeyKeepsItsFirstPages) {
  const auto keys = Keys(48);
  SequenceCache first(&arena), second(&arena);
  Fill(first, BlockKeys(PrefixRoot("m", ""), Text(32)));
  Fill(second, keys);  // computed the same two blocks itself, and one more
  EXPECT_EQ(index.blocks(), 3);
  const auto match = index.Find(keys, 9);
  EXPECT_EQ(match.pages[0][0], first.runs(0)[0].pages[0]);
  EXPECT_EQ(match.pages[0][2], second.runs(0)[0].pages[2]);
  // Only the cache holds the first two blocks now, but a block below them is in use.
  first.Release();
  EXPECT_EQ(index.reclaimable_pages(), 0);
  Audit({&second});
  second.Release();
  EXPECT_EQ(index.reclaimable_pages(), 6);
}

TEST_F(PrefixCacheTest, AChainWhoseParentIsGoneIsRefused) {
  const auto keys = Keys(64);
  SequenceCache sequence(&arena);
  ASSERT_TRUE(sequence.Extend(64));
  EXPECT_TRUE(index.Insert(keys, 0, BlockPages(sequence, 0)));
  EXPECT_FALSE(index.Insert(keys, 2, BlockPages(sequence, 2)));
  index.Clear();
  EXPECT_FALSE(index.Insert(keys, 1, BlockPages(sequence, 1)));
  EXPECT_EQ(index.blocks(), 0);
  Audit({&sequence});
  EXPECT_TRUE(index.Insert(keys, 0, BlockPages(sequence, 0)));  // from the start it may be again
  EXPECT_TRUE(index.Insert(keys, 1, BlockPages(sequence, 1)));
  Audit({&sequence});
}

TEST_F(PrefixCacheTest, ClearLeavesLiveSequencesTheirPages) {
  SequenceCache sequence(&arena);
  Fill(sequence, Keys(64));
  index.Clear();
  EXPECT_EQ(index.blocks(), 0);
  EXPECT_EQ(index.reclaimable_pages(), 0);
  Audit({&sequence});
  sequence.Release();
  EXPECT_EQ(arena.used_bytes(), 0);
}

TEST_F(PrefixCacheTest, TheSamePageUnderTwoKeysIsACheck) {
  SequenceCache sequence(&arena);
  Fill(sequence, Keys(16));
  EXPECT_DEATH(index.Insert(Keys(16, 100), 0, BlockPages(sequence, 0)), "check failed");
}

}  // namespace
}  // namespace tessera
