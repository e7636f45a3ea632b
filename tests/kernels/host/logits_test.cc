// Compares the steps before and after sampling with their definition, on every backend.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tests/kernels/test_util.h"

namespace tessera::testing {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kLowest = std::numeric_limits<float>::lowest();

class LogitsTest : public BackendTest {};

std::vector<int32_t> SomeIds(Random& random, int64_t cols, int64_t n) {
  std::vector<int32_t> ids(cols);
  std::iota(ids.begin(), ids.end(), 0);
  std::shuffle(ids.begin(), ids.end(), random.engine());
  ids.resize(std::min(n, cols));
  return ids;
}

// Computes LogitEdit's definition, id after id.
float Edited(float x, int32_t id, const LogitEdit& e, const std::vector<LogitBias>& biases,
             const std::vector<TokenCount>& counts, const std::vector<int32_t>& sampled) {
  for (int i = 0; i < e.biases; ++i) {
    if (biases[e.first_bias + i].id == id) x += biases[e.first_bias + i].bias;
  }
  int times = e.awaited >= 0 && sampled[e.awaited] == id ? 1 : 0;
  bool seen = times > 0;
  for (int i = 0; i < e.counts; ++i) {
    if (counts[e.first_count + i].id != id) continue;
    seen = true;
    times += counts[e.first_count + i].times;
  }
  if (!seen) return x;
  volatile float y = x > 0 ? x / e.repetition : x * e.repetition;
  if (times == 0) return y;
  y = y - e.presence;
  volatile float frequent = e.frequency * static_cast<float>(times);
  y = y - frequent;
  return y;
}

// Edits of some of a batch's rows, and what they refer to.
struct Edits {
  std::vector<LogitEdit> edits;
  std::vector<LogitBias> biases;
  std::vector<TokenCount> counts;
  std::vector<int32_t> sampled;
  int awaited_counted = 0, awaited_new = 0;

  Edits(Random& random, int64_t rows, int64_t cols) {
    for (int i = 0; i < 7; ++i) sampled.push_back(static_cast<int32_t>(random.Below(cols)));
    for (int64_t row = 0; row < rows; row += 1 + row % 3) Add(random, row, cols);
  }
  void Add(Random& random, int64_t row, int64_t cols) {
    LogitEdit e;
    e.row = static_cast<int32_t>(row);
    e.first_bias = static_cast<int32_t>(biases.size());
    for (const int32_t id : SomeIds(random, cols, row % 4 * 100)) {
      biases.push_back({id, id % 5 == 0 ? -kInf : random.Normal()});
    }
    if (row % 5 == 1) biases.push_back({-3, 1}), biases.push_back({1 << 20, 1});
    e.biases = static_cast<int32_t>(biases.size()) - e.first_bias;
    e.first_count = static_cast<int32_t>(counts.size());
    for (const int32_t id : SomeIds(random, cols, row % 3 * 333)) {
      counts.push_back({id, static_cast<int32_t>(random.Below(4))});
    }
    if (row % 5 == 2) counts.push_back({-1, 2}), counts.push_back({1 << 20, 1});
    e.counts = static_cast<int32_t>(counts.size()) - e.first_count;
    if (row % 2 == 0) {
      e.awaited = static_cast<int32_t>(row % 7);
      const bool counted =
          std::any_of(counts.begin() + e.first_count, counts.end(),
                      [&](const TokenCount& c) { return c.id == sampled[e.awaited]; });
      ++(counted ? awaited_counted : awaited_new);
    }
    e.repetition = row % 4 == 3 ? 1 : 1.3f;
    e.presence = row % 4 == 2 ? 0 : 0.7f;
    e.frequency = 0.1f * static_cast<float>(row % 5);
    edits.push_back(e);
  }
};

TEST_P(LogitsTest, EditsAreTheirFormulae) {
  Random random(31);
  int changed = 0, awaited_counted = 0, awaited_new = 0;
  for (const int64_t cols : {1, 5, 300, 5003}) {
    const int64_t rows = 40;
    std::vector<float> logits = random.Normals(rows * cols, 5);
    logits[0] = NAN;
    logits[rows * cols - 1] = kInf;
    const Edits all(random, rows, cols);
    awaited_counted += all.awaited_counted;
    awaited_new += all.awaited_new;
    std::vector<float> expected = logits;
    for (const LogitEdit& e : all.edits) {
      for (int64_t c = 0; c < cols; ++c) {
        float& x = expected[e.row * cols + c];
        x = Edited(x, static_cast<int32_t>(c), e, all.biases, all.counts, all.sampled);
      }
    }
    for (Ops* ops : {ops_.get(), reference_.get()}) {
      std::vector<float> got = logits;
      ops->EditLogits(got.data(), cols, all.edits.data(), std::ssize(all.edits), all.biases.data(),
                      all.counts.data(), all.sampled.data());
      for (int64_t i = 0; i < rows * cols; ++i) {
        if (std::isnan(expected[i])) {
          EXPECT_TRUE(std::isnan(got[i]));
        } else {
          ASSERT_EQ(got[i], expected[i])
              << cols << " columns, row " << i / cols << ", id " << i % cols;
        }
        changed += got[i] != logits[i] ? 1 : 0;
      }
    }
  }
  EXPECT_GT(changed, 5000);
  EXPECT_GT(awaited_counted, 5);
  EXPECT_GT(awaited_new, 5);
}

TEST_P(LogitsTest, NoEditsAndNoJobsAreNothing) {
  std::vector<float> logits = {1, 2};
  ops_->EditLogits(logits.data(), 2, nullptr, 0, nullptr, nullptr, nullptr);
  ops_->Logprobs(nullptr, 2, nullptr, 0, 0, nullptr, nullptr);
  EXPECT_THAT(logits, ::testing::ElementsAre(1, 2));
}

TEST_P(LogitsTest, LogprobsAreLogSoftmax) {
  Random random(23);
  constexpr int64_t kPlaces = 24;
  for (const int64_t cols : {1, 2, 17, 700, 5003}) {
    const int64_t n = 30;
    std::vector<float> logits = random.Normals(n * cols, 6);
    for (int64_t i = 0; i < n * cols / 2; ++i) logits[i] = std::round(logits[i]);  // equal ones
    std::vector<LogprobJob> jobs;
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < n; ++i) {
      jobs.push_back({static_cast<int32_t>(n - 1 - i), static_cast<int32_t>(i % kPlaces)});
      ids.push_back(static_cast<int32_t>(random.Below(cols)));
    }
    std::vector<LogprobAt> out(n * kPlaces);
    ops_->Logprobs(logits.data(), cols, jobs.data(), n, kPlaces, ids.data(), out.data());
    for (int64_t i = 0; i < n; ++i) {
      const float* row = &logits[i * cols];
      const LogprobAt* got = &out[i * kPlaces];
      long double sum = 0;
      for (int64_t c = 0; c < cols; ++c) sum += std::exp(static_cast<long double>(row[c]));
      // One rounding to float; the error of the double sum is far below it.
      const auto expect = [&](const LogprobAt& at, int32_t id) {
        const auto exact = static_cast<double>(row[id] - std::log(sum));
        EXPECT_EQ(at.id, id);
        EXPECT_NEAR(at.logprob, exact,
                    std::fabs(exact) * std::numeric_limits<float>::epsilon() + 1e-12);
      };
      expect(got[0], ids[jobs[i].sampled]);
      std::vector<int32_t> order(cols);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(),
                       [&](int32_t a, int32_t b) { return row[a] > row[b]; });
      for (int t = 0; t < jobs[i].top; ++t) {
        if (t < cols) {
          expect(got[1 + t], order[t]);
        } else {
          EXPECT_EQ(got[1 + t].id, -1);
        }
      }
    }
  }
}

TEST_P(LogitsTest, LogprobsOfBrokenLogitsStayFinite) {
  const std::vector<float> logits = {NAN, 0,    -kInf, 0, NAN, NAN, NAN, NAN, kInf,  0,
                                     0,   kInf, -0.f,  0, 0,   0,   5,   NAN, -kInf, -kInf};
  const std::vector<LogprobJob> jobs(5, {0, 4});
  const std::vector<int32_t> ids = {2};
  std::vector<LogprobAt> out(25);
  ops_->Logprobs(logits.data(), 4, jobs.data(), 5, 5, ids.data(), out.data());
  const auto row = [&](int i) {
    std::vector<int32_t> of;
    for (int t = 1; t < 5; ++t) of.push_back(out[5 * i + t].id);
    return of;
  };
  for (const int i : {0, 1, 4}) EXPECT_EQ(out[5 * i].logprob, kLowest) << i;
  EXPECT_THAT(row(0), ::testing::ElementsAre(1, 3, -1, -1));
  EXPECT_FLOAT_EQ(out[1].logprob, static_cast<float>(-std::log(2.0)));
  EXPECT_THAT(row(1), ::testing::ElementsAre(-1, -1, -1, -1));
  EXPECT_THAT(row(2), ::testing::ElementsAre(0, 3, 1, 2));
  EXPECT_EQ(out[10].logprob, kLowest);
  EXPECT_THAT(row(3), ::testing::ElementsAre(0, 1, 2, 3));  // -0 is 0
  EXPECT_THAT(row(4), ::testing::ElementsAre(0, -1, -1, -1));
  EXPECT_EQ(out[21].logprob, 0);
}

INSTANTIATE_TEST_SUITE_P(Cpu, LogitsTest, ::testing::ValuesIn(AllCpuCases()), CaseName);
INSTANTIATE_TEST_SUITE_P(Cuda, LogitsTest, ::testing::ValuesIn(AllCudaCases()), CaseName);

}  // namespace
}  // namespace tessera::testing
