// Compressing policies through the whole engine: the same answer whatever the schedule, honest
// accounting, and memory that comes back.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "cache/policies/registry.h"
#include "engine/request/explanation.h"
#include "engine/runtime/engine.h"
#include "tests/engine/engine_testing.h"
#include "tests/support/paths.h"

namespace tessera {
namespace {

using testing::Answer;
using testing::Checkpoint;
using testing::MakeRequest;
using testing::Reader;
using testing::SourcePath;

// Every method, and compositions; windows small enough that tokens leave them in short answers.
constexpr const char* kPolicies[] = {
    "none",
    "rtn(bits=8)",
    "rtn(bits=2, window=32)",
    "hadamard(bits=4, window=16)",
    "kivi(bits=4, residual=32)",
    "kivi(bits=2, group=head, residual=16)",
    "hadamard(bits=2, group=32)",
    "calibquant",
    "random(keep=0.7, scope=visual)+calibquant(bits=2)",
    "akvq(window=32)",
    "akvq(window=16, pivots=20, pivot_rule=topk_entries, tsa=1)",
    "flashcache(keep=0.4)",
    "snapkv(keep=0.3)",
    "snapkv(keep=0.5, window=70, pool=max)+rtn(bits=4)",
    "h2o(keep=0.3)",
    "h2o(tokens=40, recent=0.25)",
    "flashcache(keep=0.3, scope=visual, segment=image)+akvq(window=16, pivot_rule=threshold)",
    "window(sinks=4, recent=64)",
    "random(keep=0.5, seed=3)",
    "random(keep=0.7, scope=visual)+rtn(bits=4)",
};

std::shared_ptr<const Policy> PolicyOf(const std::string& text) {
  const auto policy = ParsePolicy(text);
  if (!policy.ok()) CheckFailed(__FILE__, __LINE__, policy.status().ToString().c_str());
  return *policy;
}

EngineOptions Options(int64_t kv_bytes) {
  EngineOptions o;
  o.kv_cache_bytes = kv_bytes;
  o.check_integrity = true;
  o.stall_timeout = absl::InfiniteDuration();  // answers are read one after the other
  return o;
}

class Questions {
 public:
  Questions() : lines_(testing::ReadLines(SourcePath("tests/eval/questions.jsonl"))) {}
  Prompt At(const Checkpoint& c, size_t i) const {
    return testing::PromptOfQuestion(c, lines_[i], SourcePath("tests/eval"));
  }
  // Up to its last image, whose 64 tokens end it.
  static int TokensBeforeTheQuestion(const Prompt& prompt) {
    return prompt.images.back().begin +
           prompt.image_tokens / static_cast<int>(prompt.images.size());
  }
  std::string Reference(size_t i) const { return lines_[i]["reference"]; }
  size_t Images(size_t i) const { return lines_[i]["images"].size(); }

 private:
  std::vector<nlohmann::json> lines_;
};

TEST(EnginePolicyTest, AnswersDoNotDependOnTheScheduleUnderAnyPolicy) {
  const Questions questions;
  constexpr int kTokens = 70;                       // long enough for two window exits
  std::vector<std::pair<std::string, bool>> cases;  // policy, committed before the question
  for (const char* policy : kPolicies) cases.emplace_back(policy, false);
  for (const size_t p : {2, 4, 5, 8, 15}) cases.emplace_back(kPolicies[p], true);
  const auto run = [&](const EngineOptions& options, unsigned seed, int* preemptions) {
    Checkpoint c = testing::LoadCheckpoint(SourcePath("models/demo"));
    std::vector<Request> requests;
    for (size_t i = 0; i < cases.size(); ++i) {
      const auto& [policy, at_question] = cases[i];
      const size_t question = 40 + 7 * (i % std::size(kPolicies));  // one and four images
      Request r = MakeRequest(absl::StrCat("q", i), questions.At(c, question), kTokens);
      r.stop.ignore_eos = true;
      r.top_logprobs = 0;
      r.policy = PolicyOf(policy);
      if (at_question) r.commit_tokens = Questions::TokensBeforeTheQuestion(r.prompt);
      requests.push_back(std::move(r));
    }
    Engine engine(std::move(c.model), c.tokenizer, options, nullptr);
    std::vector<Reader> readers(requests.size());
    std::mt19937 rng(seed);
    for (size_t i = 0; i < requests.size(); ++i) {
      requests[i].priority = seed > 0 ? static_cast<int>(rng() % 2) : 0;
      const absl::Status s =
          engine.Submit(std::move(requests[i]), readers[i].output_queue(), nullptr);
      EXPECT_TRUE(s.ok()) << s;
    }
    std::vector<Answer> answers;
    for (Reader& reader : readers) {
      answers.push_back(reader.ReadAll());
      *preemptions += answers.back().last.usage.preemptions;
    }
    engine.FlushCaches();
    const auto held = [&engine] {
      int64_t pages = 0;
      for (const int64_t n : engine.Load().pages_by_format) pages += n;
      return pages;
    };
    for (int i = 0; i < 500 && held() > 0; ++i) absl::SleepFor(absl::Milliseconds(10));
    EXPECT_EQ(held(), 0);
    return answers;
  };
  int ignored = 0, preemptions = 0;
  EngineOptions alone = Options(256 << 20);
  alone.max_sequences = 1;
  alone.prefix_cache = false;
  const std::vector<Answer> expected = run(alone, 0, &ignored);
  for (unsigned seed = 1; seed <= 3; ++seed) {
    EngineOptions o = Options((seed == 1 ? 128 : 20) << 20);
    o.max_sequences = 3 + static_cast<int>(seed);
    o.max_batch_tokens = 60 + 50 * static_cast<int>(seed);
    o.prefix_cache = seed != 2;
    o.async_scheduling = seed == 3;
    const std::vector<Answer> got = run(o, seed, &preemptions);
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_TRUE(got[i].last.status.ok()) << got[i].last.status;
      EXPECT_EQ(got[i].ids, expected[i].ids) << cases[i].first << " seed " << seed;
      EXPECT_EQ(got[i].logprobs, expected[i].logprobs) << cases[i].first << " seed " << seed;
    }
  }
  EXPECT_GT(preemptions, 0) << "the arena was meant to be too small";
}

// A long text after the commit: in chunks of any size it sees what it would see token by token.
TEST(EnginePolicyTest, WhatFollowsTheCommitDoesNotDependOnItsChunks) {
  constexpr int kPrompt = 150, kCommit = 45;
  std::vector<int32_t> ids(kPrompt, 1);
  std::mt19937 rng(5);
  for (int i = 1; i < kPrompt; ++i) ids[i] = 3 + static_cast<int32_t>(rng() % 500);
  const auto ask = [&](int rows) {
    Checkpoint c = testing::LoadCheckpoint(SourcePath("models/demo"));
    const Prompt prompt = testing::PromptOfIds(c, ids, {});
    EngineOptions o = Options(64 << 20);
    o.max_batch_tokens = rows;
    o.max_sequences = 1;
    Engine engine(std::move(c.model), c.tokenizer, o, nullptr);
    std::vector<Answer> answers;
    for (const char* policy : kPolicies) {
      Request r = MakeRequest(policy, prompt, 2);
      r.stop.ignore_eos = true;
      r.top_logprobs = 0;
      r.policy = PolicyOf(policy);
      r.commit_tokens = kCommit;
      r.bypass_prefix = true;
      answers.push_back(testing::Ask(engine, std::move(r)));
    }
    return answers;
  };
  const std::vector<Answer> expected = ask(1);
  for (const int rows : {7, 512}) {
    const std::vector<Answer> got = ask(rows);
    for (size_t p = 0; p < std::size(kPolicies); ++p) {
      ASSERT_TRUE(got[p].last.status.ok()) << got[p].last.status;
      EXPECT_EQ(got[p].ids, expected[p].ids) << kPolicies[p] << ", " << rows << " rows a step";
      EXPECT_EQ(got[p].logprobs, expected[p].logprobs) << kPolicies[p] << ", " << rows << " rows";
      EXPECT_EQ(got[p].last.usage.kv_bytes, expected[p].last.usage.kv_bytes) << kPolicies[p];
    }
  }
}

// The first token after a commit at the prompt's end is exact; after one at the question it is not.
TEST(EnginePolicyTest, TheQuestionReadsTheCompressedCache) {
  const Questions questions;
  Checkpoint c = testing::LoadCheckpoint(SourcePath("models/demo"));
  const Prompt prompt = questions.At(c, 60);
  const int commit = Questions::TokensBeforeTheQuestion(prompt);
  ASSERT_LT(commit, static_cast<int>(prompt.ids.size()));
  Engine engine(std::move(c.model), c.tokenizer, Options(128 << 20), nullptr);
  const auto ask = [&](const char* policy, int commit_tokens) {
    Request r = MakeRequest(absl::StrCat(policy, commit_tokens), prompt, 1);
    r.top_logprobs = 0;
    r.policy = PolicyOf(policy);
    r.commit_tokens = commit_tokens;
    return testing::Ask(engine, std::move(r));
  };
  const Answer none = ask("none", 0);
  EXPECT_EQ(ask("none", commit).logprobs, none.logprobs);
  EXPECT_EQ(ask("rtn(bits=8, window=4096)", commit).logprobs, none.logprobs);
  for (const char* policy : {"rtn(bits=1)", "kivi(bits=1, residual=0)", "window(recent=16)"}) {
    EXPECT_EQ(ask(policy, 0).logprobs, none.logprobs) << policy;
    EXPECT_NE(ask(policy, commit).logprobs, none.logprobs) << policy;
  }
  // A selector judges what is before the commit alone.
  const Usage usage = ask("window(sinks=4, recent=16)", commit).last.usage;
  EXPECT_EQ(usage.evicted_text + usage.evicted_vision, commit - 20);
}

TEST(EnginePolicyTest, UsageTellsWhatWasHeld) {
  const Questions questions;
  Checkpoint c = testing::LoadCheckpoint(SourcePath("models/demo"));
  std::vector<Prompt> prompts;
  for (size_t p = 0; p < std::size(kPolicies); ++p) prompts.push_back(questions.At(c, 200));
  const double images = prompts[0].image_tokens,
               tokens = static_cast<double>(prompts[0].ids.size());
  struct Reports : Observer {
    void OnCompressed(const CompressReport& r) override {
      commits += r.commits;
      exited_tokens = exited_tokens + r.exited_tokens;
    }
    std::atomic<int> commits{0};
    std::atomic<double> exited_tokens{0};
  } reports;
  Engine engine(std::move(c.model), c.tokenizer, Options(256 << 20), &reports);
  std::map<std::string, Usage> usage;
  for (size_t p = 0; p < std::size(kPolicies); ++p) {
    Request r = MakeRequest(kPolicies[p], prompts[p], 2);
    r.stop.ignore_eos = true;
    r.policy = PolicyOf(kPolicies[p]);
    usage[kPolicies[p]] = testing::Ask(engine, std::move(r)).last.usage;
  }
  const Usage& none = usage["none"];
  EXPECT_EQ(none.kv_mean_bits, 16);
  EXPECT_EQ(none.evicted_text + none.evicted_vision, 0);
  // Bits of a per-token format at head dim 128: its codes and 2 x 16 bits of metadata a vector.
  EXPECT_NEAR(usage["rtn(bits=8)"].kv_mean_bits, 8.25, 0.6);
  EXPECT_LT(usage["akvq(window=32)"].kv_mean_bits, 5);
  EXPECT_LT(usage["akvq(window=32)"].kv_bytes, none.kv_bytes / 3);
  EXPECT_LT(usage["kivi(bits=4, residual=32)"].kv_bytes, none.kv_bytes / 2);
  const Usage& window = usage["window(sinks=4, recent=64)"];
  EXPECT_NEAR(window.evicted_text + window.evicted_vision, tokens - 68, 1);
  const Usage& random = usage["random(keep=0.7, scope=visual)+rtn(bits=4)"];
  EXPECT_EQ(random.evicted_text, 0);
  EXPECT_NEAR(random.evicted_vision, 0.3 * images, 1);
  for (const auto& [text, u] : usage) {
    EXPECT_EQ(ParsePolicy(u.policy).ok(), true) << text;
    EXPECT_GE(u.kv_bytes_peak, u.kv_bytes) << text;
  }
  EXPECT_EQ(reports.commits, std::ssize(kPolicies) - 1);  // all but none
  // One stored token after the prompt's end: rtn(bits=8) has no window, but needs 32 for an exit.
  EXPECT_EQ(reports.exited_tokens, 0);
}

TEST(EnginePolicyTest, AWindowWiderThanTheAnswerMakesAkvqRotatedSixteenBit) {
  const Questions questions;
  const auto ask = [&](const char* policy) {
    Checkpoint c = testing::LoadCheckpoint(SourcePath("models/demo"));
    Request r = MakeRequest("a", questions.At(c, 60), 24);
    r.stop.ignore_eos = true;
    r.top_logprobs = 0;
    r.policy = PolicyOf(policy);
    Engine engine(std::move(c.model), c.tokenizer, Options(128 << 20), nullptr);
    return testing::Ask(engine, std::move(r));
  };
  const Answer akvq = ask("akvq(window=4096)"), hadamard = ask("hadamard(bits=8, window=4096)");
  EXPECT_EQ(akvq.ids, hadamard.ids);
  EXPECT_EQ(akvq.logprobs, hadamard.logprobs);
  EXPECT_EQ(akvq.last.usage.kv_mean_bits, 16);
}

TEST(EnginePolicyTest, FlashCacheThatKeepsAllIsNone) {
  const Questions questions;
  const auto ask = [&](const char* policy) {
    Checkpoint c = testing::LoadCheckpoint(SourcePath("models/demo"));
    Request r = MakeRequest("a", questions.At(c, 61), 24);
    r.stop.ignore_eos = true;
    r.top_logprobs = 0;
    r.policy = PolicyOf(policy);
    Engine engine(std::move(c.model), c.tokenizer, Options(128 << 20), nullptr);
    return testing::Ask(engine, std::move(r));
  };
  const Answer none = ask("none"), all = ask("flashcache(keep=1)");
  EXPECT_EQ(all.ids, none.ids);
  EXPECT_EQ(all.logprobs, none.logprobs);
  EXPECT_EQ(all.last.usage.kv_bytes, none.last.usage.kv_bytes);
}

// A prefix that is found has no statistics of the steps that made it: policies that read them run
// it again and say so; what is measured of stored K and V works with a hit.
TEST(EnginePolicyTest, PrefixHitsEndWhereStatisticsBegin) {
  const Questions questions;
  for (const char* policy : {"akvq(window=32)", "akvq(window=32, pivots=0)", "flashcache(keep=0.4)",
                             "h2o(keep=0.3)", "flashcache(keep=0.5)+akvq(window=16)"}) {
    Checkpoint c = testing::LoadCheckpoint(SourcePath("models/demo"));
    const Prompt prompt = questions.At(c, 60);
    Engine engine(std::move(c.model), c.tokenizer, Options(128 << 20), nullptr);
    const auto ask = [&](const char* id) {
      Request r = MakeRequest(id, prompt, 12);
      r.stop.ignore_eos = true;
      r.top_logprobs = 0;
      r.policy = PolicyOf(policy);
      return testing::Ask(engine, std::move(r));
    };
    const Answer first = ask("first"), second = ask("second");
    EXPECT_EQ(first.ids, second.ids) << policy;
    EXPECT_EQ(first.logprobs, second.logprobs) << policy;
    EXPECT_EQ(first.last.usage.cached_tokens + first.last.usage.recomputed_tokens, 0) << policy;
    const PolicyNeeds needs = PolicyOf(policy)->needs();
    const bool runs_again = needs.residual_peaks > 0 || needs.attention_steps;
    const int found = (static_cast<int>(prompt.ids.size()) - 1) / 16 * 16;
    EXPECT_EQ(second.last.usage.cached_tokens, runs_again ? 0 : found) << policy;
    EXPECT_EQ(second.last.usage.recomputed_tokens, runs_again ? found : 0) << policy;
  }
}

TEST(EnginePolicyTest, EightBitsAnswerLikeSixteen) {
  const Questions questions;
  Checkpoint c = testing::LoadCheckpoint(SourcePath("models/demo"));
  std::vector<size_t> chosen;
  std::vector<Prompt> prompts;
  for (size_t i = 5; i < 270; i += 11) {
    chosen.push_back(i);
    prompts.push_back(questions.At(c, i));
  }
  Engine engine(std::move(c.model), c.tokenizer, Options(256 << 20), nullptr);
  int equal = 0;
  for (size_t i = 0; i < chosen.size(); ++i) {
    Request r = MakeRequest(absl::StrCat(i), prompts[i], 8);
    r.policy = PolicyOf("rtn(bits=8)");
    equal += testing::Ask(engine, std::move(r)).text == questions.Reference(chosen[i]);
  }
  std::printf("rtn(bits=8): %d of %zu answers equal the reference\n", equal, chosen.size());
  EXPECT_GE(equal, static_cast<int>(chosen.size()) - 1);
}

TEST(EnginePolicyTest, AnExplanationTellsWhereEachTokenIs) {
  const Questions questions;
  Checkpoint c = testing::LoadCheckpoint(SourcePath("models/demo"));
  const Prompt prompt = questions.At(c, 60);
  Engine engine(std::move(c.model), c.tokenizer, Options(128 << 20), nullptr);
  const auto ask = [&](const char* policy, bool explain) {
    Request r = MakeRequest(policy, prompt, 6);
    r.stop.ignore_eos = true;
    r.policy = PolicyOf(policy);
    r.commit_tokens = Questions::TokensBeforeTheQuestion(prompt);
    r.explain = explain;
    return testing::Ask(engine, std::move(r)).last;
  };
  EXPECT_EQ(ask("none", false).explanation, nullptr);
  EXPECT_EQ(ask("none", true).explanation->commit_tokens, 0);
  const Event flash = ask("flashcache(keep=0.5)", true);
  EXPECT_EQ(flash.explanation->score_name, "deviation from the low-pass base");
  bool any_evicted = false;
  for (const Explanation::Layer& layer : flash.explanation->layers) {
    // Who stays has at least the score of who goes.
    ASSERT_EQ(static_cast<int>(layer.scores.size()), flash.explanation->commit_tokens);
    float least_kept = INFINITY, most_evicted = 0;
    for (size_t i = 0; i < layer.scores.size(); ++i) {
      if (layer.stored[i] == Explanation::kEvicted) {
        most_evicted = std::max(most_evicted, layer.scores[i]);
      } else {
        least_kept = std::min(least_kept, layer.scores[i]);
      }
    }
    EXPECT_GE(least_kept, most_evicted);
    any_evicted |= most_evicted > 0;
  }
  EXPECT_TRUE(any_evicted);
  const Event last = ask("random(keep=0.5, scope=visual)+akvq(window=16, pivots=0)", true);
  ASSERT_NE(last.explanation, nullptr);
  const Explanation& e = *last.explanation;
  EXPECT_EQ(e.prompt_tokens, static_cast<int>(prompt.ids.size()));
  EXPECT_EQ(e.commit_tokens, Questions::TokensBeforeTheQuestion(prompt));
  EXPECT_EQ(e.tokens.size(), prompt.ids.size() + 5);  // the last one is not computed
  ASSERT_EQ(e.images.size(), prompt.images.size());
  EXPECT_EQ(e.images[0].begin, prompt.images[0].begin);
  EXPECT_EQ(e.images[0].tokens, 64);
  ASSERT_EQ(e.layers.size(), 8u);
  int64_t bytes = 0, evicted = 0;
  for (const Explanation::Layer& layer : e.layers) {
    bytes += layer.bytes;
    ASSERT_EQ(layer.stored.size(), e.tokens.size());
    evicted += std::count(layer.stored.begin(), layer.stored.end(), Explanation::kEvicted);
    // The newest tokens are at 16 bit.
    EXPECT_EQ(layer.stored.back(), 1 + static_cast<int>(Format::kRaw16));
  }
  EXPECT_EQ(bytes, last.usage.kv_bytes);
  const Event headers = ask("calibquant", true);  // the images' headers are bytes as well
  bytes = 0;
  for (const Explanation::Layer& layer : headers.explanation->layers) bytes += layer.bytes;
  EXPECT_EQ(bytes, headers.usage.kv_bytes);
  EXPECT_EQ(headers.explanation->bytes_per_token[static_cast<int>(Format::kHeader)], 0);
  EXPECT_EQ(static_cast<double>(evicted) / 8, last.usage.evicted_vision);
  // Text at 4 bit in the first two layers, at 2 in the others: BOS is text, and is never evicted.
  for (int l = 0; l < 8; ++l) {
    EXPECT_EQ(e.layers[l].stored[0],
              1 + static_cast<int>(l < 2 ? Format::kToken4 : Format::kToken2));
  }
}

// The question reads pictures that are stored per channel: 4 bits are enough for this model, and
// what 1 bit does is printed. Only such a commit tests the runs with headers for what they hold.
TEST(EnginePolicyTest, PicturesStoredPerChannelAnswerQuestions) {
  const Questions questions;
  Checkpoint c = testing::LoadCheckpoint(SourcePath("models/demo"));
  std::vector<size_t> chosen;
  std::vector<Prompt> prompts;
  for (size_t i = 5; i < 270; i += 22) {
    chosen.push_back(i);
    prompts.push_back(questions.At(c, i));
  }
  Engine engine(std::move(c.model), c.tokenizer, Options(256 << 20), nullptr);
  for (const char* policy : {"calibquant(bits=4)", "kivi(bits=4, residual=0)", "calibquant"}) {
    int equal = 0;
    for (size_t i = 0; i < chosen.size(); ++i) {
      Request r = MakeRequest(absl::StrCat(policy, i), prompts[i], 8);
      r.policy = PolicyOf(policy);
      const auto images = static_cast<int>(prompts[i].images.size());
      r.commit_tokens = prompts[i].images.back().begin + prompts[i].image_tokens / images;
      const Answer answer = testing::Ask(engine, std::move(r));
      EXPECT_LT(answer.last.usage.kv_mean_bits, 16);
      equal += answer.text == questions.Reference(chosen[i]);
    }
    std::printf("%s: %d of %zu answers equal the reference\n", policy, equal, chosen.size());
    if (absl::string_view(policy) != "calibquant") {
      EXPECT_GE(equal, static_cast<int>(chosen.size()) - 1) << policy;
    }
  }
}

// More sequences run at once in the same arena when the policy is smaller.
TEST(EnginePolicyTest, APolicyThatHoldsLessLetsMoreRun) {
  struct Peak : Observer {
    void OnStep(const StepReport&, const EngineLoad& load) override {
      running = std::max(running.load(), load.running);
    }
    std::atomic<int> running{0};
  };
  const Questions questions;
  const auto peak = [&](const char* policy) {
    Checkpoint c = testing::LoadCheckpoint(SourcePath("models/demo"));
    std::vector<Prompt> prompts;
    for (int i = 0; i < 12; ++i) prompts.push_back(questions.At(c, 100));
    Peak observer;
    EngineOptions o = Options(32 << 20);
    o.prefix_cache = false;
    o.check_integrity = false;
    Engine engine(std::move(c.model), c.tokenizer, o, &observer);
    std::vector<Reader> readers(prompts.size());
    for (size_t i = 0; i < prompts.size(); ++i) {
      Request r = MakeRequest(absl::StrCat(i), prompts[i], 40);
      r.stop.ignore_eos = true;
      r.policy = PolicyOf(policy);
      EXPECT_TRUE(engine.Submit(std::move(r), readers[i].output_queue(), nullptr).ok());
    }
    for (Reader& reader : readers) EXPECT_TRUE(reader.ReadAll().last.status.ok());
    return observer.running.load();
  };
  const int none = peak("none"), akvq = peak("akvq(window=32)");
  std::printf("running at once in 32 MiB: none %d, akvq(window=32) %d\n", none, akvq);
  EXPECT_GE(akvq, 2 * none);
}

}  // namespace
}  // namespace tessera
