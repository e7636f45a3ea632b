#include "server/process/arena_size.h"

#include "gmock/gmock.h"

namespace tessera {
namespace {

using testing::HasSubstr;

constexpr int64_t kGiB = int64_t{1} << 30;

TEST(ArenaSizeTest, ReadsWhatPeopleWriteAndWritesItBack) {
  const std::pair<const char*, ArenaSize> kCases[] = {{"auto", {}},
                                                      {"48GiB", {.bytes = 48 * kGiB}},
                                                      {"1%", {.percent = 1}},
                                                      {"99%", {.percent = 99}}};
  for (const auto& [text, size] : kCases) {
    ArenaSize parsed{.bytes = 7, .percent = 7};
    std::string error;
    ASSERT_TRUE(AbslParseFlag(text, &parsed, &error)) << text << ": " << error;
    EXPECT_EQ(parsed, size) << text;
    EXPECT_EQ(AbslUnparseFlag(parsed), text);
  }
  for (const char* text :
       {"", "0", "0%", "100%", "-5%", "8.5%", "80 %%", "%", "Auto", "80percent", "1GB"}) {
    ArenaSize parsed{.bytes = 7};
    std::string error;
    EXPECT_FALSE(AbslParseFlag(text, &parsed, &error)) << text;
    EXPECT_EQ(parsed.bytes, 7) << text;
    EXPECT_FALSE(error.empty()) << text;
  }
}

TEST(ArenaSizeTest, SharesAreOfWhatADeviceHasFree) {
  EXPECT_EQ(*ArenaBytes({.bytes = 5}, 0, 0), 5);
  EXPECT_EQ(*ArenaBytes({.bytes = 100 * kGiB}, 0, kGiB), 100 * kGiB);
  EXPECT_EQ(*ArenaBytes({.bytes = 100 * kGiB}, 101 * kGiB, kGiB), 100 * kGiB);
  EXPECT_EQ(*ArenaBytes({}, 0, kGiB), kGiB);
  EXPECT_EQ(*ArenaBytes({}, 102 * kGiB, 2 * kGiB), 85 * kGiB);
  EXPECT_EQ(*ArenaBytes({.percent = 50}, 102 * kGiB, 2 * kGiB), 50 * kGiB);
  EXPECT_EQ(*ArenaBytes({.percent = 33}, kGiB, 0) % (1 << 20), 0);
  EXPECT_EQ(*ArenaBytes({.percent = 99}, 4096 * kGiB, 0), kMostArenaBytes);
}

TEST(ArenaSizeTest, SaysWhyThereIsNoArena) {
  const auto host = ArenaBytes({.percent = 80}, 0, 0);
  EXPECT_EQ(host.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(host.status().message(), HasSubstr("--kv_cache_bytes=80%: this device has no"));
  for (const ArenaSize size :
       {ArenaSize(), ArenaSize{.percent = 99}, ArenaSize{.bytes = 2 * kGiB}}) {
    const auto full = ArenaBytes(size, kGiB, 2 * kGiB);
    EXPECT_EQ(full.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(full.status().message(), HasSubstr("has 1GiB free"));
    EXPECT_THAT(full.status().message(), HasSubstr("--image_cache_bytes=2GiB"));
  }
  EXPECT_FALSE(ArenaBytes({.percent = 1}, 100 << 20, 0).ok());
  EXPECT_FALSE(ArenaBytes({.bytes = kGiB + 1}, kGiB, 0).ok());
}

}  // namespace
}  // namespace tessera
