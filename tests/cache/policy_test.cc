#include "cache/policy.h"

#include "cache/arena.h"
#include "cache/sequence_cache.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

std::string ErrorOf(absl::string_view text) {
  const auto policy = ParsePolicy(text);
  EXPECT_FALSE(policy.ok()) << text;
  EXPECT_EQ(policy.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(policy.status().message());
}

TEST(Policy, NoneInAllItsSpellings) {
  for (absl::string_view text : {"none", "none()", " none ( ) ", "\tnone"}) {
    const auto policy = ParsePolicy(text);
    ASSERT_TRUE(policy.ok()) << text << ": " << policy.status();
    EXPECT_EQ((*policy)->Text(), "none");
  }
}

TEST(Policy, NonesPeakIsWhatASequenceHolds) {
  const auto policy = ParsePolicy("none");
  ASSERT_TRUE(policy.ok());
  for (const KvGeometry& geometry : {KvGeometry{8, 4, 128}, {32, 32, 128}, {2, 1, 8}}) {
    for (int tokens : {0, 1, 15, 16, 17, 600}) {
      Arena arena(int64_t{1} << 30, geometry);
      SequenceCache sequence(&arena);
      ASSERT_TRUE(sequence.Extend(tokens));
      EXPECT_EQ((*policy)->PeakBytes(tokens, geometry), sequence.bytes());
    }
  }
  EXPECT_EQ((*policy)->PeakBytes(16, {32, 32, 128}), 16 * 524288);  // LLaVA-1.5-7B
}

TEST(Policy, TheTableIsComplete) {
  ASSERT_EQ(PolicyTable().size(), 1u);
  for (const PolicyInfo& info : PolicyTable()) {
    EXPECT_FALSE(info.summary.empty());
    const auto policy = ParsePolicy(info.name + "(" + info.parameters + ")");
    ASSERT_TRUE(policy.ok()) << policy.status();  // the defaults, written out, mean the default
    EXPECT_EQ((*policy)->Text(), info.name);
  }
}

TEST(Policy, ErrorsAreExact) {
  EXPECT_EQ(ErrorOf("nnone"), "unknown kv policy 'nnone'; did you mean 'none'? known: none");
  EXPECT_EQ(ErrorOf("akvq(window=64)"), "unknown kv policy 'akvq'; known: none");
  EXPECT_EQ(ErrorOf("none(bits=4)"), "kv policy 'none': unknown parameter 'bits'; there are none");
  EXPECT_EQ(ErrorOf("none+none"),
            "kv policy 'none+none': 'none' decides alone which tokens stay and how they are "
            "stored; it cannot be combined by '+'");
  EXPECT_EQ(ErrorOf("none+nine"), "unknown kv policy 'nine'; did you mean 'none'? known: none");
  EXPECT_EQ(ErrorOf(""), "kv policy '': expected a policy name at byte 0, found the end");
  EXPECT_EQ(ErrorOf("none;"), "kv policy 'none;': expected '+' or the end at byte 4, found ';'");
}

}  // namespace
}  // namespace tessera
