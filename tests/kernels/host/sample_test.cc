// Compares sampling with the filters' definition, on every backend.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tests/kernels/test_util.h"

namespace tessera::testing {
namespace {

class SampleTest : public BackendTest {};

TEST_P(SampleTest, TemperatureZeroIsTheFirstLargest) {
  Random random(7);
  const float inf = INFINITY;
  for (int64_t cols : {1, 3, 64, 1000, 5003}) {
    const int64_t rows = 19;
    std::vector<float> logits = random.Normals(rows * cols, 5);
    for (float& x : logits) x = std::round(x);  // so that many are equal
    for (int64_t r = 0; r < rows; ++r) {
      const auto at = [&](int64_t c) -> float& { return logits[r * cols + c % cols]; };
      if (r == 1) at(cols / 2) = NAN;
      if (r == 2) at(cols / 3) = inf, at(cols - 1) = std::numeric_limits<float>::max();
      if (r == 3) std::fill_n(&at(0), cols, -inf);
      if (r == 4) std::fill_n(&at(0), cols, NAN), at(cols - 1) = -inf;
      if (r == 5) std::fill_n(&at(0), cols, -0.0f), at(cols - 1) = 0.0f;
      if (r == 6) at(0) = -inf, at(cols - 1) = 1e30f;
    }
    for (int share : {0, 3, 1}) {  // none banned, every third, all
      std::vector<uint8_t> banned(cols);
      for (int64_t c = 0; c < cols; ++c) banned[c] = share > 0 && c % share == 0 ? 1 : 0;
      std::vector<int32_t> ids(rows, -1), expected(rows, -1);
      ops_->SampleTokens(logits.data(), rows, cols, banned.data(), nullptr, ids.data());
      for (int64_t r = 0; r < rows; ++r) {
        // The first id that no other exceeds, computed in another way than the backends do.
        const auto value = [&](int64_t c) {
          const float x = logits[r * cols + c];
          return std::isnan(x) ? -inf : std::min(x, std::numeric_limits<float>::max());
        };
        expected[r] = 0;
        for (int64_t c = cols - 1; c >= 0; --c) {
          bool best = banned[c] == 0;
          for (int64_t o = 0; best && o < cols; ++o) best = banned[o] != 0 || value(c) >= value(o);
          if (best) expected[r] = static_cast<int32_t>(c);
        }
      }
      EXPECT_EQ(ids, expected) << cols << " columns, every " << share;
      reference_->SampleTokens(logits.data(), rows, cols, banned.data(), nullptr, ids.data());
      EXPECT_EQ(ids, expected);
    }
  }
}

// The definition, token after token, in double.
int32_t Defined(const float* logits, int64_t cols, const std::vector<uint8_t>& banned,
                const SampleRule& rule) {
  std::vector<double> weights(cols);
  std::vector<int32_t> order;
  const auto value = [&](int64_t c) {
    const float x = std::isnan(logits[c]) ? -INFINITY : logits[c];
    return double{std::min(x, std::numeric_limits<float>::max())};
  };
  int32_t lowest = 0;
  for (int64_t c = cols - 1; c >= 0; --c) {
    if (banned[c] != 0) continue;
    lowest = static_cast<int32_t>(c);
    if (value(c) > -INFINITY) order.push_back(static_cast<int32_t>(c));
  }
  if (order.empty()) return lowest;
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return value(a) != value(b) ? value(a) > value(b) : a < b;
  });
  if (rule.temperature == 0) return order[0];
  if (rule.top_k > 0 && rule.top_k < static_cast<int64_t>(order.size())) order.resize(rule.top_k);
  double all = 0, mass = 0;
  for (int32_t id : order) {
    all += weights[id] = std::exp((value(id) - value(order[0])) / double{rule.temperature});
  }
  size_t kept = 0;
  while (kept < order.size() && (kept == 0 || mass < double{rule.top_p} * all)) {
    mass += weights[order[kept++]];
  }
  if (rule.top_p == 1.0f) kept = order.size();
  order.resize(kept);
  std::erase_if(order, [&](int32_t id) { return weights[id] < rule.min_p; });
  std::sort(order.begin(), order.end());
  all = mass = 0;
  for (int32_t id : order) all += weights[id];
  for (int32_t id : order) {
    mass += weights[id];
    if (mass > rule.uniform * all) return id;
  }
  return order.back();
}

// Continuous logits, and rounded ones with many ties, so that thresholds lie between equal logits.
TEST_P(SampleTest, FiltersKeepWhatTheyAreDefinedToKeep) {
  Random random(8);
  const float inf = INFINITY;
  int distinct = 0;
  for (const int64_t cols : {1, 3, 64, 1000, 5003}) {
    for (const bool ties : {false, true}) {
      const int64_t rows = 96;
      std::vector<float> logits = random.Normals(rows * cols, 4);
      if (ties) {
        for (float& x : logits) x = std::round(x);
      }
      for (int64_t r = 90; r < rows; ++r) {
        const auto at = [&](int64_t c) -> float& { return logits[r * cols + c % cols]; };
        if (r == 90) at(cols / 2) = NAN, at(cols / 3) = -inf;
        if (r == 91) at(cols / 3) = inf, at(cols - 1) = std::numeric_limits<float>::max();
        if (r == 92) std::fill_n(&at(0), cols, -inf);
        if (r == 93) std::fill_n(&at(0), cols, NAN), at(cols - 1) = 3;
        if (r == 94) std::fill_n(&at(0), cols, 0.5f);
        if (r == 95) std::fill_n(&at(0), cols, -1000.0f), at(cols / 2) = 0;
      }
      const float temperatures[] = {0.3f, 1, 2.5f, 0}, shares[] = {1, 0.95f, 0.5f, 1e-6f};
      const int32_t most[] = {0, 1, 5, 50, 4000};
      const float least[] = {0, 0.05f, 1};
      std::vector<SampleRule> rules(rows);
      for (int64_t r = 0; r < rows; ++r) {
        rules[r] = {temperatures[r % 11 == 10 ? 3 : r % 3], most[r / 3 % 5], shares[r / 2 % 4],
                    least[r / 5 % 3], static_cast<double>(random.engine()() >> 11) * 0x1p-53};
        if (r % 13 == 0) rules[r].uniform = 0x1p-20;
        if (r % 13 == 1) rules[r].uniform = 1 - 0x1p-20;
      }
      std::vector<uint8_t> banned(cols);
      for (int64_t c = 0; c < cols; ++c) banned[c] = cols > 1 && c % 7 == 1 ? 1 : 0;
      std::vector<int32_t> ids(rows, -1), expected(rows);
      ops_->SampleTokens(logits.data(), rows, cols, banned.data(), rules.data(), ids.data());
      for (int64_t r = 0; r < rows; ++r) {
        expected[r] = Defined(&logits[r * cols], cols, banned, rules[r]);
        EXPECT_EQ(ids[r], expected[r])
            << cols << " columns, row " << r << ": temperature " << rules[r].temperature
            << ", top_k " << rules[r].top_k << ", top_p " << rules[r].top_p << ", min_p "
            << rules[r].min_p << ", uniform " << rules[r].uniform;
      }
      std::sort(ids.begin(), ids.end());
      distinct += static_cast<int>(std::unique(ids.begin(), ids.end()) - ids.begin());
    }
  }
  EXPECT_GT(distinct, 150);  // of 960 draws, 576 of them from more than 64 tokens
}

// A rule samples the same token from a row for any other rows in the call.
TEST_P(SampleTest, RowsDoNotTouchEachOther) {
  Random random(9);
  const int64_t rows = 33, cols = 700;
  const std::vector<float> logits = random.Normals(rows * cols, 3);
  const std::vector<uint8_t> banned(cols);
  std::vector<SampleRule> rules(rows);
  for (int64_t r = 0; r < rows; ++r) {
    rules[r] = {0.8f, static_cast<int32_t>(r % 3 * 20), 0.9f, 0,
                static_cast<double>(random.engine()() >> 11) * 0x1p-53};
  }
  std::vector<int32_t> together(rows), alone(rows);
  ops_->SampleTokens(logits.data(), rows, cols, banned.data(), rules.data(), together.data());
  for (int64_t r = 0; r < rows; ++r) {
    ops_->SampleTokens(&logits[r * cols], 1, cols, banned.data(), &rules[r], &alone[r]);
  }
  EXPECT_EQ(together, alone);
}

INSTANTIATE_TEST_SUITE_P(Cpu, SampleTest, ::testing::ValuesIn(AllCpuCases()), CaseName);
INSTANTIATE_TEST_SUITE_P(Cuda, SampleTest, ::testing::ValuesIn(AllCudaCases()), CaseName);

}  // namespace
}  // namespace tessera::testing
