#include "vision/tower/feature_cache.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

Digest Key(uint8_t n) {
  Digest key{};
  key[0] = n;
  return key;
}

std::shared_ptr<const ImageFeatures> Features(int64_t rows) {
  auto features = std::make_shared<ImageFeatures>();
  features->rows = rows;
  features->width = 2;  // 8 bytes a row
  return features;
}

TEST(FeatureCacheTest, EvictsTheLeastRecentlyUsed) {
  FeatureCache cache(80);
  for (uint8_t i = 0; i < 4; ++i) cache.Insert(Key(i), Features(2));  // 16 bytes each
  EXPECT_EQ(cache.bytes(), 64);
  EXPECT_NE(cache.Find(Key(0)), nullptr);  // now the newest
  cache.Insert(Key(9), Features(5));       // 40 bytes: 1 and 2 must go
  EXPECT_EQ(cache.Find(Key(1)), nullptr);
  EXPECT_EQ(cache.Find(Key(2)), nullptr);
  EXPECT_NE(cache.Find(Key(0)), nullptr);
  EXPECT_NE(cache.Find(Key(3)), nullptr);
  EXPECT_NE(cache.Find(Key(9)), nullptr);
  EXPECT_EQ(cache.bytes(), 72);
  EXPECT_EQ(cache.entries(), 3);
}

TEST(FeatureCacheTest, EvictedFeaturesLiveWhileHeld) {
  FeatureCache cache(16);
  cache.Insert(Key(1), Features(2));
  const auto held = cache.Find(Key(1));
  cache.Insert(Key(2), Features(2));
  EXPECT_EQ(cache.Find(Key(1)), nullptr);
  EXPECT_EQ(held->rows, 2);
}

TEST(FeatureCacheTest, TooLargeIsNotKeptAndEvictsNothing) {
  FeatureCache cache(16);
  cache.Insert(Key(1), Features(2));
  cache.Insert(Key(2), Features(3));
  EXPECT_EQ(cache.Find(Key(2)), nullptr);
  EXPECT_NE(cache.Find(Key(1)), nullptr);
  EXPECT_EQ(cache.bytes(), 16);
}

TEST(FeatureCacheTest, ReinsertReplacesAndCountsOnce) {
  FeatureCache cache(100);
  cache.Insert(Key(1), Features(2));
  cache.Insert(Key(1), Features(3));
  EXPECT_EQ(cache.bytes(), 24);
  EXPECT_EQ(cache.entries(), 1);
  EXPECT_EQ(cache.Find(Key(1))->rows, 3);
  cache.Clear();
  EXPECT_EQ(cache.bytes(), 0);
  EXPECT_EQ(cache.entries(), 0);
  EXPECT_EQ(cache.Find(Key(1)), nullptr);
}

TEST(FeatureCacheTest, ZeroLimitKeepsNothing) {
  FeatureCache cache(0);
  cache.Insert(Key(1), Features(1));
  EXPECT_EQ(cache.entries(), 0);
}

}  // namespace
}  // namespace tessera
