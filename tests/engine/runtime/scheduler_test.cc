// The scheduler against fakes: no device, no model, no clock. A fake engine runs what is planned
// and appends tokens.
#include "engine/runtime/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>

#include "cache/policies/registry.h"
#include "engine/runtime/compressor.h"

namespace tessera {
namespace {

const std::shared_ptr<const Policy> kNone = *ParsePolicy("none");
constexpr KvGeometry kGeometry{2, 1, 64};  // a 16-token page is 4 KiB, a slab 512 pages

Prompt MakePrompt(int tokens, int seed) {
  Prompt p;
  for (int i = 0; i < tokens; ++i) p.ids.push_back((seed * 7919 + i * 31) % 500);
  return p;
}

// Runs planned items as an engine would; a sequence ends after `output` tokens.
class FakeEngine {
 public:
  FakeEngine(const SchedulerLimits& limits, int64_t arena_bytes)
      : limits_(limits),
        cache_(arena_bytes, kGeometry),
        arena_(cache_.arena()),
        prefix_(cache_.prefix_cache()),
        scheduler_(limits, &cache_) {}
  ~FakeEngine() {
    for (auto& [s, job] : jobs_) scheduler_.Remove(s);
  }

  Sequence* Add(int prompt, int output, int priority = 0, bool use_prefix = false, int seed = -1) {
    auto job = std::make_unique<Job>();
    job->prompt = MakePrompt(prompt, seed < 0 ? static_cast<int>(arrivals_) : seed);
    job->sequence = std::make_unique<Sequence>(&arena_, job->prompt, *kNone, priority, arrivals_++);
    job->output = output;
    Sequence* s = job->sequence.get();
    s->use_prefix = use_prefix;
    if (use_prefix) s->prefix_root = PrefixRoot("model", "");
    jobs_[s] = std::move(job);
    scheduler_.Add(s);
    return s;
  }

  // One step; returns the plan after running it. Finished sequences are removed.
  SchedulerOutput Step() {
    const SchedulerOutput plan = scheduler_.Schedule();
    int rows = 0;
    for (const auto& item : plan.items) {
      rows += item.count;
      EXPECT_EQ(item.first, item.sequence->computed);
      EXPECT_GT(item.count, 0);
      EXPECT_GE(item.sequence->cache.length(), item.first + item.count)
          << "pages were not reserved";
      EXPECT_EQ(item.sample,
                item.first + item.count == static_cast<int>(item.sequence->tokens.size()));
    }
    EXPECT_EQ(rows, plan.rows);
    EXPECT_LE(rows, limits_.max_batch_tokens);
    EXPECT_LE(scheduler_.running(), limits_.max_sequences);
    for (const auto& item : plan.items) {
      scheduler_.Advance(item);
      if (!item.sample) continue;
      Sequence* s = item.sequence;
      s->tokens.push_back(static_cast<int>(s->tokens.size()) % 500);
      if (static_cast<int>(s->tokens.size()) - s->prompt_tokens == jobs_[s]->output) {
        finished_.push_back(s->arrival);
        preemptions_ += s->preemptions;
        Cancel(s);
      }
    }
    EXPECT_TRUE(arena_.CheckIntegrity().ok()) << arena_.CheckIntegrity();
    EXPECT_TRUE(prefix_.CheckIntegrity().ok()) << prefix_.CheckIntegrity();
    for (auto& [s, job] : jobs_) EXPECT_TRUE(s->cache.CheckIntegrity().ok());
    return plan;
  }

  void Cancel(Sequence* s) {
    scheduler_.Remove(s);
    jobs_.erase(s);
  }

  int64_t live() const { return static_cast<int64_t>(jobs_.size()); }
  std::vector<Sequence*> sequences() const {
    std::vector<Sequence*> out;
    for (auto& [s, job] : jobs_) out.push_back(s);
    return out;
  }

  struct Job {
    Prompt prompt;
    std::unique_ptr<Sequence> sequence;
    int output = 0;
  };
  SchedulerLimits limits_;
  KvCacheManager cache_;
  Arena& arena_;
  PrefixCache& prefix_;
  Scheduler scheduler_;
  std::map<Sequence*, std::unique_ptr<Job>> jobs_;
  std::vector<int64_t> finished_;
  int64_t arrivals_ = 0;
  int preemptions_ = 0;
};

TEST(SchedulerTest, AnEmptyQueueGivesAnEmptyPlan) {
  FakeEngine engine({64, 8}, 4 << 20);
  EXPECT_TRUE(engine.Step().items.empty());
}

TEST(SchedulerTest, PromptsAreCutIntoChunksAndOnlyTheLastSamples) {
  FakeEngine engine({64, 8}, 4 << 20);
  engine.Add(150, 2);
  std::vector<int> counts;
  std::vector<bool> samples;
  while (engine.live() > 0) {
    const SchedulerOutput plan = engine.Step();
    ASSERT_EQ(plan.items.size(), 1u);
    counts.push_back(plan.items[0].count);
    samples.push_back(plan.items[0].sample);
  }
  EXPECT_EQ(counts, (std::vector<int>{64, 64, 22, 1}));
  EXPECT_EQ(samples, (std::vector<bool>{false, false, true, true}));
}

// Up to the commit, then to where tokens leave the window.
TEST(SchedulerTest, ChunksEndAtTheCommitAndAtWindowExits) {
  KvCacheManager cache(16 << 20, kGeometry);
  Scheduler scheduler({64, 8}, &cache);
  Compressor compressor(&scheduler, kGeometry, [](const std::vector<MoveBatch>&) {});
  const Prompt prompt = MakePrompt(200, 1);
  const auto policy = *ParsePolicy("rtn(bits=2, window=8)");
  Sequence s(&cache.arena(), prompt, *policy, 0, 0);
  s.commit_tokens = 90;
  scheduler.Add(&s);
  std::vector<int> counts;
  std::vector<bool> commits;
  std::vector<int> exits;
  while (s.to_compute() > 0) {
    const SchedulerOutput plan = scheduler.Schedule();
    ASSERT_EQ(plan.items.size(), 1u);
    counts.push_back(plan.items[0].count);
    scheduler.Advance(plan.items[0]);
    const Compressor::Result done = compressor.Compress({&s});
    EXPECT_TRUE(done.preempted.empty());
    commits.push_back(done.report.commits > 0);
    exits.push_back(static_cast<int>(done.report.exited_tokens));
  }
  // 8 tokens stay at 16 bit at the commit: 32 more, and 32 leave.
  EXPECT_EQ(counts, (std::vector<int>{64, 26, 32, 32, 32, 14}));
  EXPECT_EQ(commits, (std::vector<bool>{false, true, false, false, false, false}));
  EXPECT_EQ(exits, (std::vector<int>{0, 0, 32, 32, 32, 0}));
  scheduler.Remove(&s);
}

TEST(SchedulerTest, DecodesRunBesideALongPrefill) {
  FakeEngine engine({64, 8}, 4 << 20);
  Sequence* first = engine.Add(10, 20);
  engine.Step();
  engine.Add(1000, 1);
  const int before = static_cast<int>(first->tokens.size());
  for (int i = 0; i < 5; ++i) {
    const SchedulerOutput plan = engine.Step();
    EXPECT_EQ(plan.items.size(), 2u);
    EXPECT_EQ(plan.rows, 64);
    EXPECT_EQ(plan.items[0].sequence, first);  // the decode comes first
  }
  EXPECT_EQ(static_cast<int>(first->tokens.size()), before + 5);
}

TEST(SchedulerTest, PriorityThenAge) {
  FakeEngine engine({16, 1}, 4 << 20);
  engine.Add(8, 3);
  engine.Add(8, 3);
  engine.Add(8, 3, /*priority=*/5);
  for (int i = 0; engine.live() > 0 && i < 100; ++i) engine.Step();
  EXPECT_EQ(engine.finished_, (std::vector<int64_t>{2, 0, 1}));
}

TEST(SchedulerTest, AHigherPriorityPushesALowerOneOut) {
  FakeEngine engine({16, 1}, 4 << 20);
  engine.Add(8, 50);
  engine.Step();
  engine.Add(8, 2, /*priority=*/1);
  const SchedulerOutput plan = engine.Step();
  ASSERT_EQ(plan.preempted.size(), 1u);
  EXPECT_EQ(plan.preempted[0]->arrival, 0);
  for (int i = 0; engine.live() > 0 && i < 200; ++i) engine.Step();
  EXPECT_EQ(engine.finished_, (std::vector<int64_t>{1, 0}));
  EXPECT_EQ(engine.preemptions_, 1);
}

TEST(SchedulerTest, EqualPriorityNeverPushesOut) {
  FakeEngine engine({16, 1}, 4 << 20);
  engine.Add(8, 20);
  engine.Add(8, 2);
  for (int i = 0; engine.live() > 0 && i < 200; ++i) engine.Step();
  EXPECT_EQ(engine.preemptions_, 0);
}

// Two sequences that fit one at a time: the younger is preempted and both finish.
TEST(SchedulerTest, MemoryPressurePreemptsTheYoungestAndAllFinish) {
  // One slab of 2 MiB: 512 pages of 16 tokens, 2 layers -> 4096 tokens.
  FakeEngine engine({512, 4}, 2 << 20);
  engine.Add(1900, 1000);
  engine.Add(1900, 1000);
  int steps = 0;
  while (engine.live() > 0 && ++steps < 10000) engine.Step();
  EXPECT_EQ(engine.finished_, (std::vector<int64_t>{0, 1}));
  EXPECT_GT(engine.preemptions_, 0);
  EXPECT_EQ(engine.arena_.used_bytes(), 0);
}

TEST(SchedulerTest, AdmissionWaitsUntilTheWholePromptFits) {
  FakeEngine engine({4096, 8}, 2 << 20);  // room for 4096 tokens
  engine.Add(3000, 50);
  engine.Add(3000, 50);
  engine.Step();
  EXPECT_EQ(engine.scheduler_.running(), 1);
  EXPECT_EQ(engine.scheduler_.waiting(), 1);
  while (engine.live() > 0) engine.Step();
  EXPECT_EQ(engine.preemptions_, 0) << "admission should have prevented it";
}

TEST(SchedulerTest, APrefixHitSkipsComputedBlocksButRunsAtLeastOneToken) {
  FakeEngine engine({4096, 8}, 4 << 20);
  engine.Add(160, 1, 0, true, /*seed=*/3);
  while (engine.live() > 0) engine.Step();
  Sequence* again = engine.Add(160, 1, 0, true, /*seed=*/3);
  const SchedulerOutput plan = engine.Step();
  ASSERT_EQ(plan.items.size(), 1u);
  EXPECT_EQ(plan.items[0].first, 144);  // 9 of 10 full blocks: the last must give logits
  EXPECT_EQ(plan.items[0].count, 16);
  (void)again;
  Sequence* other = engine.Add(160, 1, 0, true, /*seed=*/4);
  EXPECT_EQ(engine.Step().items[0].first, 0);
  (void)other;
}

TEST(SchedulerTest, OutputBlocksServeTheNextTurn) {
  FakeEngine engine({4096, 8}, 4 << 20);
  Sequence* s = engine.Add(40, 60, 0, true, 1);
  std::vector<int32_t> known;
  while (engine.live() > 0) {
    known = s->tokens;
    engine.Step();
  }
  auto job = std::make_unique<FakeEngine::Job>();
  job->prompt.ids = known;  // the conversation so far as the next prompt
  job->output = 1;
  job->sequence =
      std::make_unique<Sequence>(&engine.arena_, job->prompt, *kNone, 0, engine.arrivals_++);
  Sequence* next = job->sequence.get();
  next->use_prefix = true;
  next->prefix_root = PrefixRoot("model", "");
  engine.jobs_[next] = std::move(job);
  engine.scheduler_.Add(next);
  EXPECT_EQ(engine.Step().items[0].first, 96);  // 99 known tokens: 6 full blocks
}

// Random arrivals, cancels, priorities and prefixes under a tiny arena: everything finishes,
// nothing leaks. The checks are in Step().
TEST(SchedulerTest, RandomSchedulesFinishAndConservePages) {
  for (int seed = 0; seed < 20; ++seed) {
    std::mt19937 rng(seed);
    const auto uniform = [&](int lo, int hi) {
      return std::uniform_int_distribution<>(lo, hi)(rng);
    };
    FakeEngine engine({uniform(8, 300), uniform(1, 8)}, 2 << 20);
    int added = 0;
    for (int step = 0; step < 20000; ++step) {
      if (added < 60 && uniform(0, 3) == 0) {
        engine.Add(uniform(1, 2500), uniform(1, 200), uniform(0, 2), uniform(0, 1) == 1,
                   uniform(0, 3));
        ++added;
      }
      if (engine.live() > 0 && uniform(0, 60) == 0) {
        const auto all = engine.sequences();
        engine.Cancel(all[uniform(0, static_cast<int>(all.size()) - 1)]);
      }
      engine.Step();
      if (added == 60 && engine.live() == 0) break;
    }
    EXPECT_EQ(engine.live(), 0) << "seed " << seed << ": no progress";
    engine.prefix_.Clear();
    EXPECT_EQ(engine.arena_.used_bytes(), 0);
  }
}

}  // namespace
}  // namespace tessera
