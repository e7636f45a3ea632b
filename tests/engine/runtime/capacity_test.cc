// How many sequences run at once in one arena, by policy: the real scheduler and cache in the shape
// of the demo model, without a model. Prompts of 16 images and answers of 512 tokens.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/base.h"
#include "cache/policies/registry.h"
#include "engine/runtime/compressor.h"
#include "engine/statistics/residual_peaks.h"

namespace tessera {
namespace {

constexpr KvGeometry kDemo = {.layers = 8, .kv_heads = 4, .head_dim = 128};
constexpr int kImages = 16, kImageTokens = 64, kOutput = 512;

// 16 times a line of text and an image, then a question.
Prompt MakePrompt() {
  Prompt prompt;
  prompt.ids.resize(10);
  for (int i = 0; i < kImages; ++i) {
    prompt.ids.resize(prompt.ids.size() + 4);
    prompt.images.push_back({.begin = static_cast<int>(prompt.ids.size())});
    prompt.ids.resize(prompt.ids.size() + kImageTokens);
  }
  prompt.ids.resize(prompt.ids.size() + 30);
  prompt.image_tokens = kImages * kImageTokens;
  return prompt;
}

// Statistics as a forward pass finds them: some tokens' peaks are larger than others'.
void SetStats(Sequence& s) {
  if (!s.policy->needs().any()) return;
  s.statistics.Begin(s.policy->needs(), {.layers = kDemo.layers, .hidden = 256}, s.commit_tokens);
  auto& statistic = *s.statistics.Find<ResidualPeaks>();
  const std::vector<float> none(statistic.peaks_per_token());
  for (int layer = 0; layer < kDemo.layers; ++layer) {
    for (int t = 0; t < s.commit_tokens; ++t) {
      std::vector<float> peaks = none;
      peaks[0] = static_cast<float>(t * 7919 % 1009 + 1);
      const float median = 1;
      statistic.Set(layer, t, peaks.data(), &median);
    }
  }
}

struct Outcome {
  double running = 0;    // mean over the steps while others wait
  double preempted = 0;  // times a request
  int steps = 0;
};

// Runs `requests` of them to their ends.
Outcome Serve(const char* text, const Prompt& prompt, int64_t arena_bytes, int requests) {
  const std::shared_ptr<const Policy> policy = *ParsePolicy(text);
  KvCacheManager cache(arena_bytes, kDemo);
  Scheduler scheduler({.max_batch_tokens = 1024, .max_sequences = 512}, &cache);
  // There is no memory behind the arena: moves are bookkeeping.
  Compressor compressor(&scheduler, kDemo, [](const std::vector<MoveBatch>&) {});
  std::vector<std::unique_ptr<Sequence>> sequences;
  for (int i = 0; i < requests; ++i) {
    sequences.push_back(std::make_unique<Sequence>(&cache.arena(), prompt, *policy, 0, i));
    scheduler.Add(sequences.back().get());
  }
  Outcome outcome;
  int finished = 0, crowded_steps = 0;
  while (finished < requests) {
    const SchedulerOutput plan = scheduler.Schedule();
    TESSERA_CHECK(!plan.items.empty());
    ++outcome.steps;
    if (scheduler.waiting() > 0) {
      outcome.running += scheduler.running();
      ++crowded_steps;
    }
    std::vector<Sequence*> advanced;
    for (const SchedulerOutput::Item& item : plan.items) {
      scheduler.Advance(item);
      if (item.sequence->commit_due()) SetStats(*item.sequence);
      advanced.push_back(item.sequence);
    }
    compressor.Compress(advanced);
    for (const SchedulerOutput::Item& item : plan.items) {
      if (!item.sample) continue;
      item.sequence->tokens.push_back(1);
      if (static_cast<int>(item.sequence->tokens.size()) - item.sequence->prompt_tokens < kOutput) {
        continue;
      }
      outcome.preempted += static_cast<double>(item.sequence->preemptions) / requests;
      scheduler.Remove(item.sequence);
      ++finished;
    }
  }
  outcome.running /= crowded_steps;
  EXPECT_TRUE(cache.arena().CheckIntegrity().ok());
  EXPECT_EQ(cache.arena().used_bytes(), 0);
  return outcome;
}

TEST(CapacityTest, AkvqRunsFourTimesAsManySequencesAsNone) {
  const Prompt prompt = MakePrompt();
  const auto none = ParsePolicy("none");
  ASSERT_TRUE(none.ok());
  const int64_t arena =
      16 * (*none)->PeakBytes(static_cast<int64_t>(prompt.ids.size()) + kOutput, kDemo);
  Outcome plain;
  for (const char* text : {"none", "akvq(window=32)", "calibquant", "kivi(residual=32)"}) {
    const Outcome outcome = Serve(text, prompt, arena, 160);
    std::printf("%s: %.1f sequences run at once, %d steps for 160, %.2f preemptions each\n", text,
                outcome.running, outcome.steps, outcome.preempted);
    if (plain.steps == 0) plain = outcome;
    EXPECT_GE(outcome.running, 16);
    if (std::string(text) == "akvq(window=32)") {
      EXPECT_GE(outcome.running, 4 * plain.running);
      EXPECT_LT(outcome.steps, plain.steps);
    }
  }
}

}  // namespace
}  // namespace tessera
