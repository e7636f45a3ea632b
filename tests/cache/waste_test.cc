// Measures how much of the arena holds no token: LLaVA-1.5-7B's shape, prompts that come and go,
// the real arena and sequence caches without memory. Policies are stores only, so every token
// stays.
#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "cache/audit.h"
#include "cache/policies/registry.h"
#include "cache/policy/policy.h"
#include "cache/sequence_cache.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

constexpr KvGeometry kLlava7B = {.layers = 32, .kv_heads = 32, .head_dim = 128};
constexpr int kLive = 64;
constexpr int kChunk = 256;   // prompt tokens of one step
constexpr int kTogether = 4;  // prompts computed at the same time

// Sequences under one policy, computed in chunks side by side, as the scheduler does.
class Crowd {
 public:
  Crowd(const Policy& policy, unsigned seed)
      : policy_(policy), random_(seed), arena_(int64_t{128} << 30, kLlava7B) {}

  // Begins prompts until `live` of them exist and all are committed; others decode meanwhile.
  void FillTo(size_t live) {
    while (live_.size() < live || computing() > 0) {
      while (live_.size() < live && computing() < kTogether) live_.push_back(Begin());
      Step();
    }
  }
  void EndOne() { live_.erase(live_.begin() + Between(0, static_cast<int>(live_.size()) - 1)); }
  void Step() {
    for (Live& s : live_) {
      const int left = static_cast<int>(s.vision.size()) - s.cache->length();
      ASSERT_TRUE(s.cache->Extend(s.committed ? 1 : std::min(left, kChunk)));
      if (!s.committed && left > kChunk) continue;
      Move(s);
    }
  }
  // Returns the share of the bytes of slabs in use that hold no token.
  double Waste() const {
    double stored = 0;
    for (const Live& s : live_) {
      for (int layer = 0; layer < kLlava7B.layers; ++layer) {
        for (const Run& run : s.cache->runs(layer)) {
          const auto page_bytes = static_cast<double>(arena_.page_bytes(run.format));
          stored += page_bytes * run.tokens / PageTokens(run.format);
          if (run.header != kNoPage) stored += arena_.page_bytes(Format::kHeader);
        }
      }
    }
    return 1 - stored / static_cast<double>(arena_.slab_used_bytes());
  }
  // Returns the part of that share that is free pages and slab remainders.
  double Stranded() const {
    return 1 -
           static_cast<double>(arena_.used_bytes()) / static_cast<double>(arena_.slab_used_bytes());
  }
  absl::Status Audit() const {
    std::vector<const SequenceCache*> caches;
    for (const Live& s : live_) caches.push_back(s.cache.get());
    return AuditCache(arena_, nullptr, caches);
  }

 private:
  struct Live {
    std::unique_ptr<SequenceCache> cache;
    std::vector<uint8_t> vision;
    bool committed = false;
  };

  int Between(int first, int last) {
    return std::uniform_int_distribution<int>(first, last)(random_);
  }
  int64_t computing() const {
    return std::count_if(live_.begin(), live_.end(), [](const Live& s) { return !s.committed; });
  }
  // A prompt has 300 to 1,200 tokens: text, as much of an image's 576 as fits, and a question of
  // 10.
  Live Begin() {
    Live s;
    s.cache = std::make_unique<SequenceCache>(&arena_, policy_.compresses());
    const int tokens = Between(300, 1200), question = Between(10, 60);
    const int image = std::min(576, tokens - question - 5);
    s.vision.assign(tokens, 0);
    std::fill_n(s.vision.end() - question - image, image, uint8_t{1});
    return s;
  }
  void Move(Live& s) {
    std::vector<int32_t> all(s.vision.size());
    std::iota(all.begin(), all.end(), 0);
    for (int layer = 0; layer < kLlava7B.layers; ++layer) {
      std::vector<MoveBatch> moves;
      const LayerStorage storage = policy_.Layer(layer);
      const auto pivots = absl::MakeConstSpan(all).first(policy_.MaxPivots(layer));
      ASSERT_TRUE(s.committed ? s.cache->ExitWindow(layer, s.vision, storage, &moves)
                              : s.cache->Commit(layer, all, s.vision, storage, &moves, pivots));
      s.cache->FinishMoves();
    }
    s.committed = true;
  }

  const Policy& policy_;
  std::mt19937 random_;
  Arena arena_;
  std::vector<Live> live_;
};

class WasteTest : public testing::TestWithParam<const char*> {};

TEST_P(WasteTest, AtMostEightPercentHoldNoToken) {
  const auto policy = ParsePolicy(GetParam());
  ASSERT_TRUE(policy.ok()) << policy.status();
  double waste = 0, stranded = 0;
  Crowd crowd(**policy, 1);
  const auto measure = [&] {
    waste = std::max(waste, crowd.Waste());
    stranded = std::max(stranded, crowd.Stranded());
  };
  crowd.FillTo(kLive);
  measure();
  for (int turn = 0; turn < 16; ++turn) {
    // From one to many sequences leave and others come. Sometimes most leave, which fragments the
    // arena most.
    for (int i = 0; i < (turn % 8 == 7 ? 40 : 1 + turn % 5); ++i) crowd.EndOne();
    crowd.FillTo(kLive);
    measure();
    for (int i = 0; i < 7; ++i) crowd.Step();
    measure();
  }
  ASSERT_TRUE(crowd.Audit().ok()) << crowd.Audit();
  std::printf("%s: at most %.2f %% hold no token, %.2f %% of it free pages and ends of slabs\n",
              GetParam(), 100 * waste, 100 * stranded);
  EXPECT_LE(waste, 0.08);
}

INSTANTIATE_TEST_SUITE_P(
    Policies, WasteTest, testing::Values("akvq", "calibquant"), [](const auto& info) {
      std::string name = info.param;
      std::replace_if(
          name.begin(), name.end(),
          [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
      return name;
    });

}  // namespace
}  // namespace tessera
