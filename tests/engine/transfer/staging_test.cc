#include "engine/transfer/staging.h"

#include <numeric>

#include "gtest/gtest.h"
#include "kernels/backend/backend.h"

namespace tessera {
namespace {

std::vector<int32_t> Numbers(int64_t n, int32_t first) {
  std::vector<int32_t> values(n);
  std::iota(values.begin(), values.end(), first);
  return values;
}

TEST(StagingTest, ArraysArriveWhereTheyWerePromised) {
  auto made = MakeBackend("reference", {});
  ASSERT_TRUE(made.ok()) << made.status();
  Ops& ops = **made;
  Staging staging(&ops, 0);
  for (int step = 0; step < 5; ++step) {
    staging.Begin();
    std::vector<std::pair<int32_t*, std::vector<int32_t>>> added;
    for (int part = 0; part < 3; ++part) {
      // Empty, odd and larger than a block of any size so far.
      for (const int64_t n : {0, 1, 17, 300'000 * step}) {
        std::vector<int32_t> values = Numbers(n, step * 1000 + part);
        int32_t* const at = staging.Add(values);
        EXPECT_EQ(reinterpret_cast<uintptr_t>(at) % 64, 0u);
        added.emplace_back(at, std::move(values));
      }
      staging.Upload();
      // The device's own changes to an array stay when others are sent.
      if (part == 0) *added[2].first = added[2].second[0] = -1;
    }
    for (const auto& [at, expected] : added) {
      std::vector<int32_t> there(expected.size());
      ops.CopyToHost(there.data(), at, static_cast<int64_t>(expected.size()) * 4);
      EXPECT_EQ(there, expected);
    }
  }
}

TEST(StagingTest, AStepLeavesTheLastOnesArraysAlone) {
  auto made = MakeBackend("reference", {});
  ASSERT_TRUE(made.ok()) << made.status();
  Staging staging(made->get(), 0);
  std::vector<const int32_t*> at;
  for (int step = 0; step < 4; ++step) {
    staging.Begin();
    at.push_back(staging.Add(Numbers(100, step)));
    staging.Upload();
    EXPECT_EQ(at[step][99], step + 99);
    if (step == 0) continue;
    EXPECT_NE(at[step], at[step - 1]);
    EXPECT_EQ(at[step - 1][99], step - 1 + 99);
  }
  EXPECT_EQ(at[3], at[1]);  // two sets take turns
}

}  // namespace
}  // namespace tessera
