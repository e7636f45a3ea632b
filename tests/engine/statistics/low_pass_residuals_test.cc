#include "engine/statistics/low_pass_residuals.h"

#include <cstring>
#include <random>

#include "base/half.h"
#include "gtest/gtest.h"
#include "kernels/backend/backend.h"

namespace tessera {
namespace {

TEST(LowPassMeasurementTest, PromptsComeWholeWithTheirRanks) {
  auto made = MakeBackend("reference", {});
  ASSERT_TRUE(made.ok()) << made.status();
  Ops& ops = **made;
  Staging staging(&ops, /*first_event=*/0);
  LowPassMeasurement residuals(&ops, &staging);
  const KvGeometry geometry{3, 2, 64};
  constexpr int64_t kPages = 4;  // of a layer
  const int64_t page_bytes = PageBytes(Format::kRaw16, geometry);
  const Buffer arena = ops.Allocate(geometry.layers * kPages * page_bytes);
  std::mt19937 random(3);
  for (int64_t i = 0; i < geometry.layers * kPages * page_bytes; i += 2) {
    const uint16_t x = FloatToHalf(std::uniform_real_distribution<float>(-1, 1)(random));
    std::memcpy(arena.get() + i, &x, 2);
  }
  std::vector<PageId> pages;
  for (int64_t i = 0; i < geometry.layers * kPages; ++i) {
    pages.push_back(static_cast<PageId>(i * page_bytes / kPageUnitBytes));
  }
  // A longer prompt than the one before, a shorter one, and segments of every length.
  const std::vector<std::vector<LowPassSegment>> prompts = {
      {{0, 17, 5}}, {{0, 60, 7}}, {{0, 3, 1}, {3, 40, 40}, {43, 1, 1}}, {{0, 9, 2}, {9, 7, 3}}};
  const std::vector<uint8_t> vision = [&] {
    std::vector<uint8_t> some(60);
    for (uint8_t& v : some) v = random() % 3;
    return some;
  }();
  const auto view = [&](const std::vector<LowPassSegment>& segments) {
    return PromptView{absl::MakeConstSpan(vision).first(
        static_cast<size_t>(segments.back().first + segments.back().tokens))};
  };
  const auto expect_right = [&](const LowPassStats& got,
                                const std::vector<LowPassSegment>& segments) {
    const int64_t tokens = view(segments).tokens(), rows = geometry.layers * tokens;
    std::vector<float> residuals(rows * 4);
    for (const LowPassSegment& s : segments) {
      ops.LowPassResiduals(arena.get(), geometry, pages.data(), kPages, s, tokens,
                           residuals.data());
    }
    std::vector<int32_t> ranks(rows);
    std::vector<double> sums(geometry.layers * 8);
    ops.RankTokens(residuals.data(), vision.data(), geometry.layers, tokens, ranks.data(),
                   sums.data());
    EXPECT_EQ(got.residuals, absl::MakeConstSpan(residuals));
    EXPECT_EQ(got.ranks, absl::MakeConstSpan(ranks));
    EXPECT_EQ(got.sums, absl::MakeConstSpan(sums));
  };
  for (const std::vector<LowPassSegment>& segments : prompts) {
    staging.Begin();
    ASSERT_TRUE(residuals.Begin(arena.get(), geometry, pages, view(segments), segments));
    const auto taken = residuals.Take();
    ASSERT_EQ(taken.size(), 1u);
    expect_right(taken[0], segments);
  }
  EXPECT_TRUE(residuals.Take().empty());
  // Several at a time, until there is no room.
  staging.Begin();
  size_t begun = 0;
  const auto begin = [&](const std::vector<LowPassSegment>& segments) {
    return residuals.Begin(arena.get(), geometry, pages, view(segments), segments);
  };
  while (begin(prompts[begun % prompts.size()])) ++begun;
  EXPECT_EQ(begun, LowPassMeasurement::kMost);
  const auto taken = residuals.Take();
  ASSERT_EQ(taken.size(), begun);
  for (size_t i = 0; i < begun; ++i) expect_right(taken[i], prompts[i % prompts.size()]);
  EXPECT_TRUE(begin(prompts[0]));
}

}  // namespace
}  // namespace tessera
