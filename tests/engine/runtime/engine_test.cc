// The engine's promises on real checkpoints: the same answers whatever the schedule, every way a
// request can end, and memory that always comes back.
#include "engine/runtime/engine.h"

#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/engine/engine_testing.h"
#include "tests/support/paths.h"

namespace tessera {
namespace {

using testing::Answer;
using testing::Ask;
using testing::Checkpoint;
using testing::MakeRequest;
using testing::Reader;
using testing::SourcePath;

constexpr char kTiny[] = "tests/golden/tiny_gqa";

EngineOptions Options(int64_t kv_bytes = 64 << 20) {
  EngineOptions o;
  o.kv_cache_bytes = kv_bytes;
  o.check_integrity = true;
  return o;
}

std::unique_ptr<Engine> TinyEngine(const EngineOptions& options, Checkpoint* out = nullptr) {
  Checkpoint c = testing::LoadCheckpoint(SourcePath(kTiny));
  auto engine = std::make_unique<Engine>(std::move(c.model), c.tokenizer, options, nullptr);
  if (out != nullptr) *out = std::move(c);
  return engine;
}

Prompt TextPrompt(int tokens, int seed = 0) {
  Prompt p;
  p.ids.push_back(1);
  for (int i = 1; i < tokens; ++i) p.ids.push_back(260 + (seed * 97 + i * 13) % 240);
  return p;
}

Request Endless(const std::string& id, int prompt, int max_tokens, int seed = 0) {
  Request r = MakeRequest(id, TextPrompt(prompt, seed), max_tokens);
  r.stop.ignore_eos = true;
  return r;
}

// All pages come back: what remains is the prefix index, and a flush empties that too.
void ExpectAllFree(Engine& engine) {
  engine.FlushCaches();
  for (int i = 0; i < 200; ++i) {
    const EngineLoad load = engine.Load();
    // The load is published after the step that a reader saw the end of.
    if (load.prefix_blocks == 0 && load.kv_bytes_used + load.kv_bytes_reclaimable == 0 &&
        load.running + load.waiting == 0) {
      break;
    }
    absl::SleepFor(absl::Milliseconds(10));
  }
  const EngineLoad load = engine.Load();
  EXPECT_EQ(load.kv_bytes_used, 0);
  EXPECT_EQ(load.kv_bytes_reclaimable, 0);
  EXPECT_EQ(load.pages_by_format[0], 0);
  EXPECT_EQ(load.running, 0);
  EXPECT_EQ(load.waiting, 0);
}

// Tokens and log-probabilities are bit-equal whatever the batch size, the chunk size, the page
// pressure (preemption forced by a tiny arena), the state of the prefix and image caches, and
// whether steps are planned ahead (those who ask for log-probabilities are not, so few do then).
TEST(EnginePropertyTest, AnswersDoNotDependOnTheSchedule) {
  const std::string dir = SourcePath("tests/eval");
  const auto questions = testing::ReadLines(dir + "/questions.jsonl");
  std::vector<size_t> chosen;
  for (size_t i = 0; i < questions.size() && chosen.size() < 14; i += 9)
    if (questions[i]["images"].size() <= 8) chosen.push_back(i);

  const auto run = [&](EngineOptions options, unsigned seed, int* preemptions, int* cached) {
    Checkpoint c = testing::LoadCheckpoint(SourcePath("models/demo"));
    std::vector<Prompt> prompts;
    for (const size_t i : chosen)
      prompts.push_back(testing::PromptOfQuestion(c, questions[i], dir));
    options.stall_timeout = absl::InfiniteDuration();  // answers are read one after the other
    Engine engine(std::move(c.model), c.tokenizer, options, nullptr);
    std::mt19937 rng(seed);
    std::vector<size_t> order(prompts.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    if (seed > 0) std::shuffle(order.begin(), order.end(), rng);
    std::vector<Reader> readers(prompts.size());
    for (const size_t i : order) {
      Request r = MakeRequest(std::to_string(i), prompts[i], 12);
      r.stop.ignore_eos = true;
      r.top_logprobs = 0;
      if (i % 3 == 1) {  // a sampled request is as reproducible as a greedy one
        r.sampling.temperature = 1.0f;
        r.sampling.has_seed = true;
        r.sampling.seed = 1234 + i;
      }
      r.priority = seed > 0 ? static_cast<int>(rng() % 3) : 0;
      EXPECT_TRUE(engine.Submit(std::move(r), readers[i].output_queue(), nullptr).ok());
      if (seed > 0 && rng() % 3 == 0) absl::SleepFor(absl::Milliseconds(rng() % 20));
    }
    std::vector<Answer> answers;
    for (Reader& reader : readers) {
      answers.push_back(reader.ReadAll());
      *preemptions += answers.back().last.usage.preemptions;
      *cached += answers.back().last.usage.cached_tokens;
    }
    ExpectAllFree(engine);
    return answers;
  };

  int ignored = 0, preemptions = 0, cached = 0;
  EngineOptions alone = Options(256 << 20);
  alone.max_sequences = 1;
  alone.prefix_cache = false;
  alone.max_batch_tokens = 1024;
  const std::vector<Answer> expected = run(alone, 0, &ignored, &ignored);
  for (unsigned seed = 1; seed <= 5; ++seed) {
    std::mt19937 rng(seed);
    EngineOptions o = Options();
    o.max_sequences = 1 + static_cast<int>(rng() % 8);
    o.max_batch_tokens = 16 + static_cast<int>(rng() % 300);
    o.prefix_cache = seed % 2 == 1;
    o.async_scheduling = seed >= 3;
    o.image_cache_bytes = seed % 3 == 0 ? 0 : 1 << 20;
    // 8 images need about 620 tokens: 10 MiB in 16-bit pages of the demo model.
    o.kv_cache_bytes = (seed <= 3 ? 22 : 64) << 20;
    const std::vector<Answer> got = run(o, seed, &preemptions, &cached);
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i].ids, expected[i].ids) << "seed " << seed << " request " << i;
      EXPECT_EQ(got[i].logprobs, expected[i].logprobs) << "seed " << seed << " request " << i;
      EXPECT_EQ(got[i].text, expected[i].text);
    }
  }
  EXPECT_GT(preemptions, 0) << "the arena was meant to be too small";
  EXPECT_GT(cached, 0) << "prefix hits were meant to happen";
}

// Rows that are only sampled, next to rows with logit edits or log-probabilities.
TEST(EngineTest, GreedyAnswersDoNotDependOnWhatElseIsAsked) {
  auto engine = TinyEngine(Options());
  std::vector<Reader> readers(24);
  for (int i = 0; i < 24; ++i) {
    Request r = Endless(std::to_string(i), 20 + i / 4, 12, i / 4);
    if (i % 4 == 1) r.top_logprobs = 2;
    if (i % 4 == 2) r.stop.min_tokens = 6;
    if (i % 4 == 3) r.sampling.logit_bias = {{5, 0.0f}};
    ASSERT_TRUE(engine->Submit(std::move(r), readers[i].output_queue(), nullptr).ok());
  }
  std::vector<Answer> answers;
  for (Reader& reader : readers) answers.push_back(reader.ReadAll());
  for (int i = 0; i < 24; i += 4) {
    ASSERT_EQ(answers[i].ids.size(), 12u);
    EXPECT_EQ(answers[i + 1].ids, answers[i].ids);
    EXPECT_EQ(answers[i + 3].ids, answers[i].ids);
    // The end of sequence is banned until six tokens are there.
    if (std::find(answers[i].ids.begin(), answers[i].ids.end(), 2) == answers[i].ids.end()) {
      EXPECT_EQ(answers[i + 2].ids, answers[i].ids);
    }
  }
}

TEST(EngineTest, UsageIsExact) {
  Checkpoint c;
  auto engine = TinyEngine(Options(), &c);
  const Answer a = Ask(*engine, Endless("a", 40, 9));
  const Usage& u = a.last.usage;
  EXPECT_EQ(u.prompt_tokens, 40);
  EXPECT_EQ(u.output_tokens, 9);
  EXPECT_EQ(a.last.reason, FinishReason::kLength);
  // 48 tokens are stored (the last output token never is): 3 pages of 16 in each of 2 layers;
  // a page is 2 heads x (K, V) x 16 tokens x 64 x 2 bytes.
  EXPECT_EQ(u.kv_bytes, 3 * 2 * (2 * 2 * 16 * 64 * 2));
  EXPECT_DOUBLE_EQ(u.kv_mean_bits, 16.0);
  EXPECT_EQ(u.policy, "none");
  EXPECT_GT(u.total_seconds, 0);
  EXPECT_GE(u.total_seconds, u.first_token_seconds);
}

TEST(EngineTest, AnImageIsEncodedOnceAndSharedByItsContent) {
  Checkpoint c;
  struct Counter : Observer {
    void OnImageEncoded(int images, double) override { encoded += images; }
    std::atomic<int> encoded{0};
  } counter;
  Checkpoint parts = testing::LoadCheckpoint(SourcePath(kTiny));
  const Prompt p = testing::PromptOfIds(parts, {1, 300, 512, 301, 512, 302},
                                        {SourcePath(std::string(kTiny) + "/images/0.jpg"),
                                         SourcePath(std::string(kTiny) + "/images/0.jpg")});
  Engine engine(std::move(parts.model), parts.tokenizer, Options(), &counter);
  Ask(engine, MakeRequest("a", p, 2));
  EXPECT_EQ(counter.encoded, 1);  // twice in one prompt
  Ask(engine, MakeRequest("b", p, 2));
  EXPECT_EQ(counter.encoded, 1);
  Request salted = MakeRequest("c", p, 2);
  salted.salt = "tenant";
  Ask(engine, std::move(salted));
  EXPECT_EQ(counter.encoded, 2);  // another tenant shares nothing
  engine.FlushCaches();
  Ask(engine, MakeRequest("d", p, 2));
  EXPECT_EQ(counter.encoded, 3);
}

TEST(EngineTest, RefusesWhatCanNeverRun) {
  auto engine =
      TinyEngine(Options(2 << 20));  // 2 MiB: 4096 tokens / 32 KiB a block of 16 x 2 layers
  Reader r;
  absl::Status s = engine->Submit(Endless("a", 500, 100), r.output_queue(), nullptr);
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << s;  // context of 512
  EXPECT_NE(s.message().find("exceed the context of 512"), absl::string_view::npos) << s;
}

TEST(EngineTest, QueueLimitAndDuplicateIds) {
  EngineOptions o = Options();
  o.max_sequences = 1;
  o.max_queue = 2;
  auto engine = TinyEngine(o);
  std::vector<Reader> readers(8);
  ASSERT_TRUE(engine->Submit(Endless("a", 10, 400), readers[0].output_queue(), nullptr).ok());
  while (engine->Load().running == 0) absl::SleepFor(absl::Milliseconds(1));
  int position = -1;
  ASSERT_TRUE(engine->Submit(Endless("b", 10, 1), readers[1].output_queue(), &position).ok());
  EXPECT_EQ(position, 0);
  EXPECT_EQ(engine->Submit(Endless("b", 10, 1), readers[2].output_queue(), nullptr).code(),
            absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(engine->Submit(Endless("c", 10, 1), readers[3].output_queue(), &position).ok());
  EXPECT_EQ(position, 1);
  EXPECT_EQ(engine->Submit(Endless("d", 10, 1), readers[4].output_queue(), nullptr).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(engine->Abort("a"));
  EXPECT_EQ(readers[0].ReadAll().last.status.code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(readers[1].ReadAll().last.status.ok());
  EXPECT_TRUE(readers[3].ReadAll().last.status.ok());
  EXPECT_FALSE(engine->Abort("a"));  // no longer live; its id may be used again
  EXPECT_TRUE(Ask(*engine, Endless("a", 5, 1)).last.status.ok());
  ExpectAllFree(*engine);
}

TEST(EngineTest, DeadlineEndsARequestAndFreesIt) {
  auto engine = TinyEngine(Options());
  Request r = Endless("a", 10, 480);
  r.deadline = SteadyNow() + absl::Milliseconds(30);
  const Answer a = Ask(*engine, std::move(r));
  EXPECT_EQ(a.last.status.code(), absl::StatusCode::kDeadlineExceeded);
  ExpectAllFree(*engine);
}

TEST(EngineTest, AReaderThatStallsIsGivenUp) {
  EngineOptions o = Options();
  o.stall_timeout = absl::Milliseconds(50);
  auto engine = TinyEngine(o);
  Reader r;
  ASSERT_TRUE(engine->Submit(Endless("a", 10, 480), r.output_queue(), nullptr).ok());
  for (int i = 0; i < 500 && engine->Load().running + engine->Load().waiting > 0; ++i)
    absl::SleepFor(absl::Milliseconds(10));
  const Answer a = r.ReadAll();
  // Either it was given up, or the whole answer fitted into the time: then nothing was lost.
  if (a.ids.size() < 480) {
    EXPECT_EQ(a.last.status.code(), absl::StatusCode::kCancelled);
  }
  ExpectAllFree(*engine);
}

TEST(EngineTest, StopEndsWhatRunsAndRefusesTheRest) {
  auto other = TinyEngine(Options());
  Reader s;
  ASSERT_TRUE(other->Submit(Endless("a", 10, 490), s.output_queue(), nullptr).ok());
  other->Stop();
  EXPECT_EQ(s.ReadAll().last.status.code(), absl::StatusCode::kUnavailable);
  Reader t;
  EXPECT_EQ(other->Submit(Endless("b", 10, 1), t.output_queue(), nullptr).code(),
            absl::StatusCode::kUnavailable);
}

TEST(EngineTest, StopStringsStopIdsAndMinTokens) {
  Checkpoint c;
  auto engine = TinyEngine(Options(), &c);
  const Answer whole = Ask(*engine, Endless("a", 30, 24));
  ASSERT_EQ(whole.ids.size(), 24u);
  // A stop id ends the answer at its first appearance.
  Request by_id = Endless("b", 30, 24);
  by_id.stop.token_ids = {whole.ids[5]};
  const Answer stopped = Ask(*engine, std::move(by_id));
  const size_t first =
      std::find(whole.ids.begin(), whole.ids.end(), whole.ids[5]) - whole.ids.begin();
  EXPECT_EQ(stopped.ids.size(), first + 1);
  EXPECT_EQ(stopped.last.reason, FinishReason::kStop);
  EXPECT_EQ(stopped.last.stop_id, whole.ids[5]);
  // Not before min_tokens: the id is not even sampled.
  Request minimum = Endless("c", 30, 24);
  minimum.stop.token_ids = {whole.ids[0]};
  minimum.stop.min_tokens = 10;
  const Answer later = Ask(*engine, std::move(minimum));
  for (int i = 0; i < 10; ++i) EXPECT_NE(later.ids[i], whole.ids[0]);
  EXPECT_GE(later.ids.size(), 10u);
  // A stop string cuts the text where it begins.
  if (whole.text.size() > 6) {
    Request by_text = Endless("d", 30, 24);
    by_text.stop.strings = {whole.text.substr(3, 3)};
    const Answer cut = Ask(*engine, std::move(by_text));
    EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(whole.text.substr(3, 3))));
    EXPECT_EQ(cut.last.stop_string, whole.text.substr(3, 3));
  }
}

// 2,000 requests, a fifth cancelled at random moments, some readers slow, an arena that forces
// preemption: every request ends, every page comes back, whether or not steps are planned ahead.
class EngineStormTest : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(RunAhead, EngineStormTest, ::testing::Bool(),
                         [](const auto& param) { return std::string(param.param ? "on" : "off"); });

TEST_P(EngineStormTest, TwoThousandRequestsWithCancelsLeaveNothingBehind) {
  EngineOptions o = Options(2 << 20);  // 64 pages: 32 blocks of 16 tokens
  o.max_sequences = 6;
  o.max_batch_tokens = 64;
  o.max_queue = 4000;
  o.async_scheduling = GetParam();
  o.image_cache_bytes = 64 << 10;
  Checkpoint parts = testing::LoadCheckpoint(SourcePath(kTiny));
  std::vector<Prompt> pool;
  for (int i = 0; i < 24; ++i) {
    if (i % 3 == 0) {
      const std::string image =
          SourcePath(std::string(kTiny) + "/images/" +
                     std::vector<std::string>{"0.jpg", "2.jpg", "4.png"}[i % 9 / 3]);
      pool.push_back(testing::PromptOfIds(parts, {1, 300 + i, 512, 301, 302}, {image}));
    } else {
      pool.push_back(TextPrompt(5 + i * 6, i % 5));
    }
  }
  Engine engine(std::move(parts.model), parts.tokenizer, o, nullptr);
  std::atomic<int> ended{0}, cancelled{0}, preempted{0};
  std::vector<std::thread> clients;
  for (int t = 0; t < 4; ++t) {
    clients.emplace_back([&, t] {
      std::mt19937 rng(t);
      std::vector<std::pair<Reader, bool>> window(16);
      for (int i = 0; i < 500; i += 16) {
        const int n = std::min(16, 500 - i);
        for (int k = 0; k < n; ++k) {
          window[k] = {Reader(), rng() % 5 == 0};
          Request r = MakeRequest(absl::StrCat(t, "-", i + k), pool[rng() % pool.size()],
                                  1 + static_cast<int>(rng() % 24));
          r.priority = static_cast<int>(rng() % 2);
          r.bypass_prefix = rng() % 4 == 0;
          ASSERT_TRUE(engine.Submit(std::move(r), window[k].first.output_queue(), nullptr).ok());
        }
        for (int k = 0; k < n; ++k) {
          auto& [reader, cancel] = window[k];
          Answer a;
          if (cancel) {
            for (int reads = static_cast<int>(rng() % 4); reads > 0 && !a.last.done; --reads)
              reader.ReadOne(&a);
            reader.output_queue()->Cancel();
          } else if (rng() % 20 == 0) {
            absl::SleepFor(absl::Milliseconds(5));  // a slow reader
          }
          while (!a.last.done && reader.ReadOne(&a)) {
          }
          if (a.last.done) ++ended;
          if (a.last.done && absl::IsCancelled(a.last.status)) ++cancelled;
          preempted += a.last.usage.preemptions;
        }
      }
    });
  }
  for (std::thread& c : clients) c.join();
  EXPECT_EQ(ended, 2000);
  std::printf("storm: %d cancelled, %d preemptions\n", cancelled.load(), preempted.load());
  EXPECT_GT(cancelled, 50);
  EXPECT_GT(preempted, 0);
  ExpectAllFree(engine);
}

}  // namespace
}  // namespace tessera
