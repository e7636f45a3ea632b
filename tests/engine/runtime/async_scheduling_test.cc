// Steps planned before the tokens of the step before are known (EngineOptions::async_scheduling):
// answers, ends and memory are those of an engine that waits for every step.
#include <algorithm>
#include <atomic>
#include <latch>
#include <set>

#include "cache/policies/registry.h"
#include "gtest/gtest.h"
#include "tests/engine/engine_testing.h"
#include "tests/engine/wrapped_model.h"
#include "tests/support/paths.h"

namespace tessera {
namespace {

using testing::Answer;
using testing::Ask;
using testing::Checkpoint;
using testing::MakeRequest;
using testing::Reader;
using testing::SourcePath;

// Counts the steps that began before the one before had been answered, and may wait in Finish.
class Watched final : public testing::WrappedModel {
 public:
  using WrappedModel::WrappedModel;
  void Forward(const Batch& batch, uint8_t* arena) override {
    most_under_way = std::max<int>(most_under_way, ++under_way_);
    awaited_rows +=
        std::count_if(batch.ids.begin(), batch.ids.end(), [](int id) { return id < 0; });
    behind_measures += under_way_ == 2 && measures_ ? 1 : 0;
    measures_ = !batch.statistics.empty();
    WrappedModel::Forward(batch, arena);
  }
  Output Finish() override {
    --under_way_;
    if (on_finish) on_finish();
    return WrappedModel::Finish();
  }
  bool BeginLowPass(const uint8_t* arena, const std::vector<PageId>& pages,
                    const PromptView& prompt,
                    const std::vector<LowPassSegment>& segments) override {
    measures_ = true;
    const bool begun = WrappedModel::BeginLowPass(arena, pages, prompt, segments);
    refused += begun ? 0 : 1;
    return begun;
  }

  std::atomic<int> most_under_way{0}, awaited_rows{0};
  std::atomic<int> behind_measures{0};  // steps that did not wait for what the one before measured
  std::atomic<int> refused{0};          // prompts that waited to be measured
  std::function<void()> on_finish;      // called by the engine's thread

 private:
  int under_way_ = 0;
  bool measures_ = false;
};

struct Running {
  Watched* model;  // the engine's
  std::unique_ptr<Engine> engine;
};

// Holds the engine where a step's answers would come, from Close on until Open: what is submitted
// meanwhile comes to it at once.
class Gate {
 public:
  void Close() { closed_ = true; }
  void AwaitEngine() { there_.wait(); }
  void Open() { open_.count_down(); }
  void Pass() {
    if (!closed_) return;
    if (!met_.test_and_set()) there_.count_down();
    open_.wait();
  }

 private:
  std::atomic<bool> closed_{false};
  std::atomic_flag met_;
  std::latch there_{1}, open_{1};
};

EngineOptions Options(bool async_scheduling) {
  EngineOptions o;
  o.kv_cache_bytes = 64 << 20;
  o.check_integrity = true;
  o.stall_timeout = absl::InfiniteDuration();
  o.async_scheduling = async_scheduling;
  return o;
}

Running Start(const EngineOptions& options, std::function<void()> on_finish = {}) {
  Checkpoint c = testing::LoadCheckpoint(SourcePath("tests/golden/tiny_gqa"));
  auto model = std::make_unique<Watched>(std::move(c.model));
  model->on_finish = std::move(on_finish);
  Running r{model.get(), nullptr};
  r.engine = std::make_unique<Engine>(std::move(model), c.tokenizer, options, nullptr);
  return r;
}

Request Endless(const std::string& id, int prompt, int max_tokens) {
  Prompt p;
  p.ids.push_back(1);
  for (int i = 1; i < prompt; ++i) p.ids.push_back(260 + i * 13 % 240);
  Request r = MakeRequest(id, std::move(p), max_tokens);
  r.stop.ignore_eos = true;
  return r;
}

void ExpectAllFree(Engine& engine) {
  engine.FlushCaches();
  const auto held = [&engine] {
    const EngineLoad load = engine.Load();
    return load.kv_bytes_used + load.kv_bytes_reclaimable + load.running + load.waiting;
  };
  for (int i = 0; i < 500 && held() > 0; ++i) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_EQ(held(), 0);
}

// Every way to end and to draw, one after the other and all at once.
std::vector<Request> EveryKind(const std::vector<int32_t>& likely, const std::string& text) {
  std::vector<Request> all;
  const auto add = [&](int prompt, int max_tokens) -> Request& {
    all.push_back(Endless(std::to_string(all.size()), prompt, max_tokens));
    return all.back();
  };
  add(30, 24);
  add(30, 1);
  add(30, 2);
  add(500, 12);  // to the end of the context of 512
  add(30, 24).stop.token_ids = {likely[5]};
  Request& minimum = add(30, 24);
  minimum.stop.token_ids = {likely[0]};
  minimum.stop.min_tokens = 10;
  add(30, 24).stop.strings = {text.substr(3, 3)};
  Request& sampled = add(40, 30);
  sampled.sampling.temperature = 1;
  sampled.sampling.has_seed = true;
  sampled.sampling.seed = 7;
  add(50, 20).top_logprobs = 2;
  add(50, 20).sampling.repetition_penalty = 1.3f;
  for (const char* policy : {"rtn(bits=4, window=16)", "akvq(window=16)", "snapkv(keep=0.5)",
                             "flashcache(keep=0.5)", "h2o(keep=0.5)"}) {
    for (const int max_tokens : {60, 1}) add(90, max_tokens).policy = *ParsePolicy(policy);
  }
  return all;
}

TEST(AsyncSchedulingTest, AnswersAndEndsAreThoseOfAnEngineThatWaits) {
  Running waiting = Start(Options(false));
  const Answer plain = Ask(*waiting.engine, Endless("a", 30, 24));
  ASSERT_EQ(plain.ids.size(), 24u);
  ASSERT_GT(plain.text.size(), 6u);
  std::vector<Answer> expected;
  for (Request& r : EveryKind(plain.ids, plain.text)) {
    expected.push_back(Ask(*waiting.engine, std::move(r)));
    EXPECT_TRUE(expected.back().last.status.ok()) << expected.back().last.status;
  }
  EXPECT_EQ(waiting.model->most_under_way, 1);

  for (const int sequences : {1, 3, 16}) {
    EngineOptions o = Options(true);
    o.max_sequences = sequences;
    o.max_batch_tokens = 100;
    Running ahead = Start(o);
    std::vector<Request> requests = EveryKind(plain.ids, plain.text);
    std::vector<Reader> readers(requests.size());
    for (size_t i = 0; i < requests.size(); ++i) {
      requests[i].bypass_prefix = sequences == 3;
      ASSERT_TRUE(
          ahead.engine->Submit(std::move(requests[i]), readers[i].output_queue(), nullptr).ok());
    }
    for (size_t i = 0; i < readers.size(); ++i) {
      SCOPED_TRACE(::testing::Message() << "request " << i << ", " << sequences << " at once");
      const Answer got = readers[i].ReadAll();
      EXPECT_EQ(got.ids, expected[i].ids);
      EXPECT_EQ(got.text, expected[i].text);
      EXPECT_EQ(got.logprobs, expected[i].logprobs);
      EXPECT_EQ(got.last.status, expected[i].last.status);
      EXPECT_EQ(got.last.reason, expected[i].last.reason);
      EXPECT_EQ(got.last.stop_id, expected[i].last.stop_id);
      EXPECT_EQ(got.last.stop_string, expected[i].last.stop_string);
      EXPECT_EQ(got.last.usage.output_tokens, expected[i].last.usage.output_tokens);
    }
    EXPECT_EQ(ahead.model->most_under_way, 2);
    EXPECT_GT(ahead.model->awaited_rows, sequences == 1 ? 200 : 20);  // h2o ends a common flight
    ExpectAllFree(*ahead.engine);
  }
}

// Penalties see a token that the host has not seen yet, and no kind of draw ends the run ahead.
TEST(AsyncSchedulingTest, EveryKindOfSamplingRunsAhead) {
  const std::pair<const char*, void (*)(Request&)> kinds[] = {
      {"log-probabilities", [](Request& r) { r.top_logprobs = 3; }},
      {"repetition", [](Request& r) { r.sampling.repetition_penalty = 1.5f; }},
      {"presence", [](Request& r) { r.sampling.presence_penalty = 2; }},
      {"frequency", [](Request& r) { r.sampling.frequency_penalty = 0.3f; }},
      {"biases",
       [](Request& r) {
         r.sampling.logit_bias = {{300, 2.5f}, {7, -100.0f}};
       }},
      {"min_tokens", [](Request& r) { r.stop.ignore_eos = false, r.stop.min_tokens = 30; }},
      {"everything",
       [](Request& r) {
         r.top_logprobs = 20;
         r.sampling.temperature = 0.8f;
         r.sampling.frequency_penalty = 0.5f;
         r.sampling.repetition_penalty = 1.2f;
         r.sampling.logit_bias = {{300, 1.0f}};
       }},
  };
  std::set<std::vector<int32_t>> distinct;
  for (const auto& [name, set] : kinds) {
    SCOPED_TRACE(name);
    Answer answers[2];
    for (const bool ahead : {false, true}) {
      Running r = Start(Options(ahead));
      Request q = Endless("a", 25, 30);
      set(q);
      answers[ahead] = Ask(*r.engine, std::move(q));
      EXPECT_EQ(r.model->awaited_rows, ahead ? 29 : 0);
    }
    EXPECT_EQ(answers[0].ids.size(), 30u);
    EXPECT_EQ(answers[1].ids, answers[0].ids);
    EXPECT_EQ(answers[1].logprobs, answers[0].logprobs);
    distinct.insert(answers[0].ids);
  }
  EXPECT_GE(distinct.size(), 5u);  // the parameters had an effect
}

// A sequence whose end can be foreseen takes no row too many.
TEST(AsyncSchedulingTest, NothingRunsBehindAForeseenEnd) {
  Running r = Start(Options(true));
  const Answer a = Ask(*r.engine, Endless("a", 20, 30));
  EXPECT_EQ(a.ids.size(), 30u);
  EXPECT_EQ(r.model->awaited_rows, 29);  // all but the first, which the prompt's last row draws
  EXPECT_EQ(a.last.usage.kv_bytes_per_token > 0, true);
  ExpectAllFree(*r.engine);
}

// More prompts of one step than are measured at a time: each has its answer all the same.
TEST(AsyncSchedulingTest, MorePromptsToMeasureThanThereIsRoomFor) {
  const auto measured = [](int i) {
    Request r = Endless(std::to_string(i), 16 + i % 5, 12);
    r.policy = *ParsePolicy("flashcache(keep=0.5)");
    return r;
  };
  std::vector<Answer> expected;
  Running waiting = Start(Options(false));
  for (int i = 0; i < 20; ++i) expected.push_back(Ask(*waiting.engine, measured(i)));
  for (const bool ahead : {false, true}) {
    Gate gate;
    EngineOptions o = Options(ahead);
    o.max_batch_tokens = 512;
    o.prefix_cache = false;
    Running r = Start(o, [&gate] { gate.Pass(); });
    gate.Close();
    Reader other;
    ASSERT_TRUE(r.engine->Submit(Endless("other", 20, 40), other.output_queue(), nullptr).ok());
    gate.AwaitEngine();
    std::vector<Reader> readers(expected.size());
    for (size_t i = 0; i < readers.size(); ++i) {
      Request q = measured(static_cast<int>(i));
      ASSERT_TRUE(r.engine->Submit(std::move(q), readers[i].output_queue(), nullptr).ok());
    }
    gate.Open();
    for (size_t i = 0; i < readers.size(); ++i) {
      SCOPED_TRACE(i);
      const Answer got = readers[i].ReadAll();
      EXPECT_EQ(got.ids, expected[i].ids);
      EXPECT_GT(got.last.usage.evicted_text, 0) << "never committed";
    }
    EXPECT_EQ(other.ReadAll().ids.size(), 40u);
    EXPECT_GE(r.model->refused, 1);
    ExpectAllFree(*r.engine);
  }
}

// All are found in the prefix index and completed by one step, and there is no room next to them
// for what the first commits write: the last ones are preempted while they wait for their turn.
TEST(AsyncSchedulingTest, PromptsArePreemptedBeforeTheyAreMeasured) {
  constexpr int kPrompts = 17;
  const auto prompt = [](int i) {
    Request r = Endless(std::to_string(i), 480, 4);
    for (int32_t& id : r.prompt.ids) id = 260 + (id + i * 7) % 240;
    return r;
  };
  const auto measured = [&prompt](int i) {
    Request r = prompt(i);
    r.policy = *ParsePolicy("flashcache(keep=0.9)");
    r.commit_tokens = 472;  // the step draws no token, whose answer would let them run again
    return r;
  };
  std::vector<Answer> expected;
  Running waiting = Start(Options(false));
  for (int i = 0; i < kPrompts; ++i) expected.push_back(Ask(*waiting.engine, measured(i)));
  int preemptions = 0;
  for (const bool ahead : {false, true}) {
    Gate gate;
    EngineOptions o = Options(ahead);
    o.kv_cache_bytes = 8 << 20;  // of which the prompts' pages take 7.97
    o.max_batch_tokens = 512;
    Running r = Start(o, [&gate] { gate.Pass(); });
    for (int i = 0; i < kPrompts; ++i) EXPECT_TRUE(Ask(*r.engine, prompt(i)).last.status.ok());
    gate.Close();
    Reader other;
    ASSERT_TRUE(r.engine->Submit(Endless("other", 5, 1), other.output_queue(), nullptr).ok());
    gate.AwaitEngine();
    std::vector<Reader> readers(kPrompts);
    for (int i = 0; i < kPrompts; ++i) {
      ASSERT_TRUE(r.engine->Submit(measured(i), readers[i].output_queue(), nullptr).ok());
    }
    gate.Open();
    for (int i = 0; i < kPrompts; ++i) {
      SCOPED_TRACE(i);
      const Answer got = readers[i].ReadAll();
      EXPECT_EQ(got.ids, expected[i].ids);
      preemptions += got.last.usage.preemptions;
    }
    EXPECT_GE(r.model->refused, 1);
    ExpectAllFree(*r.engine);
  }
  EXPECT_GE(preemptions, 1);
}

// Other sequences run on while a prompt's statistics are measured: only that prompt waits.
TEST(AsyncSchedulingTest, OthersRunWhileAPromptIsMeasured) {
  const char* policies[] = {"akvq(window=16)", "snapkv(keep=0.5)", "flashcache(keep=0.5)"};
  for (const bool ahead : {false, true}) {
    Running r = Start(Options(ahead));
    Reader others;
    ASSERT_TRUE(r.engine->Submit(Endless("others", 20, 400), others.output_queue(), nullptr).ok());
    std::vector<Reader> readers(8);
    for (size_t i = 0; i < readers.size(); ++i) {
      Request q = Endless(std::to_string(i), 60 + static_cast<int>(i), 20);
      q.policy = *ParsePolicy(policies[i % 3]);
      ASSERT_TRUE(r.engine->Submit(std::move(q), readers[i].output_queue(), nullptr).ok());
      const Answer a = readers[i].ReadAll();
      EXPECT_TRUE(a.last.status.ok()) << a.last.status;
      EXPECT_TRUE(a.last.usage.kv_mean_bits < 16 || a.last.usage.evicted_text > 0)
          << "never committed";
    }
    EXPECT_EQ(others.ReadAll().ids.size(), 400u);
    if (ahead) {
      EXPECT_GE(r.model->behind_measures, 8);
    } else {
      EXPECT_EQ(r.model->behind_measures, 0);
    }
    ExpectAllFree(*r.engine);
  }
}

// Requests that are cancelled while their next row is under way, and others that take their place.
TEST(AsyncSchedulingTest, CancelledBetweenPlanAndAnswer) {
  std::atomic<int> finishes{0};
  std::vector<Reader> readers(40);
  Running r = Start(Options(true), [&] {
    // In the middle of a step: the next one is planned and names the request already.
    const int n = finishes++;
    if (n % 5 == 4 && n / 5 < 20) readers[n / 5].output_queue()->Cancel();
  });
  for (size_t i = 0; i < readers.size(); ++i) {
    ASSERT_TRUE(r.engine
                    ->Submit(Endless(std::to_string(i), 20 + static_cast<int>(i), 60),
                             readers[i].output_queue(), nullptr)
                    .ok());
  }
  int cancelled = 0;
  for (size_t i = 0; i < readers.size(); ++i) {
    const Answer a = readers[i].ReadAll();
    if (absl::IsCancelled(a.last.status)) {
      ++cancelled;
    } else {
      EXPECT_TRUE(a.last.status.ok()) << a.last.status;
      EXPECT_EQ(a.ids.size(), 60u);
    }
  }
  EXPECT_GT(cancelled, 5);
  EXPECT_EQ(r.model->most_under_way, 2);
  ExpectAllFree(*r.engine);
}

// Pages run out between a step's plan and its answers, so that sequences are preempted whose token
// is not here yet.
TEST(AsyncSchedulingTest, PreemptedWhileTheirTokenIsAwaited) {
  std::vector<std::vector<int32_t>> expected;
  for (const bool ahead : {false, true}) {
    EngineOptions o = Options(ahead);
    o.kv_cache_bytes = (ahead ? 6 : 64) << 20;  // 6 MiB: 96 blocks of 16 tokens
    o.prefix_cache = false;
    Running r = Start(o);
    std::vector<Reader> readers(24);
    for (size_t i = 0; i < readers.size(); ++i) {
      Request q = Endless(std::to_string(i), 30 + 5 * static_cast<int>(i), 70);
      if (i % 3 == 1) q.policy = *ParsePolicy("rtn(bits=2, window=16)");
      if (i % 3 == 2) q.policy = *ParsePolicy("akvq(window=16)");
      const absl::Status status =
          r.engine->Submit(std::move(q), readers[i].output_queue(), nullptr);
      ASSERT_TRUE(status.ok()) << status;
    }
    int preemptions = 0;
    for (size_t i = 0; i < readers.size(); ++i) {
      const Answer a = readers[i].ReadAll();
      EXPECT_TRUE(a.last.status.ok()) << a.last.status;
      preemptions += a.last.usage.preemptions;
      if (!ahead) {
        expected.push_back(a.ids);
      } else {
        EXPECT_EQ(a.ids, expected[i]) << i;
      }
    }
    if (ahead) {
      EXPECT_GT(preemptions, 3);
    }
    ExpectAllFree(*r.engine);
  }
}

TEST(AsyncSchedulingTest, StoppedWithAStepUnderWay) {
  Running r = Start(Options(true));
  Reader reader;
  ASSERT_TRUE(r.engine->Submit(Endless("a", 10, 490), reader.output_queue(), nullptr).ok());
  Answer a;
  ASSERT_TRUE(reader.ReadOne(&a));
  r.engine->Stop();
  EXPECT_EQ(reader.ReadAll().last.status.code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace tessera
