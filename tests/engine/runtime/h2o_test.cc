// h2o through the whole engine: what it holds, and that the sums it goes by are those of attention.
#include <gtest/gtest.h>

#include <numeric>
#include <set>

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
using testing::SourcePath;

std::shared_ptr<const Policy> Parse(const std::string& text) {
  const auto policy = ParsePolicy(text);
  if (!policy.ok()) CheckFailed(__FILE__, __LINE__, policy.status().ToString().c_str());
  return *policy;
}

EngineOptions Options() {
  EngineOptions o;
  o.kv_cache_bytes = 128 << 20;
  o.check_integrity = true;
  return o;
}

Prompt Question(const Checkpoint& c, size_t i) {
  const std::string dir = SourcePath("tests/eval");
  return testing::PromptOfQuestion(c, testing::ReadLines(dir + "/questions.jsonl")[i], dir);
}

TEST(H2oTest, KeepsAllAndIsNoneOrStaysBelowItsBytes) {
  const auto ask = [&](const char* policy, int tokens) {
    Checkpoint c = testing::LoadCheckpoint(SourcePath("models/demo"));
    Request r = MakeRequest("a", Question(c, 61), tokens);
    r.stop.ignore_eos = true;
    r.top_logprobs = 0;
    r.policy = Parse(policy);
    Engine engine(std::move(c.model), c.tokenizer, Options(), nullptr);
    return testing::Ask(engine, std::move(r));
  };
  const Answer none = ask("none", 24), all = ask("h2o(tokens=4096)", 24);
  EXPECT_EQ(all.ids, none.ids);
  EXPECT_EQ(all.logprobs, none.logprobs);
  EXPECT_EQ(all.last.usage.kv_bytes, none.last.usage.kv_bytes);
  for (const int tokens : {2, 30, 40, 100}) {
    EXPECT_LE(ask("h2o(bytes=2097152)", tokens).last.usage.kv_bytes, 2097152) << tokens;
  }
  EXPECT_GT(ask("none", 100).last.usage.kv_bytes, 2097152);
}

// The prompt and the steps after the commit add attention to one sum: the tokens that leave after
// some steps are those that a commit at that moment would have evicted.
TEST(H2oTest, EvictsBetweenStepsAsItDoesAtTheCommit) {
  Checkpoint c = testing::LoadCheckpoint(SourcePath("models/demo"));
  Prompt prompt = Question(c, 60);
  const int commit = prompt.images.back().begin + 64;
  const int limit = commit + 7, all = limit + kEvictTokens;
  while (static_cast<int>(prompt.ids.size()) < all) prompt.ids.push_back(40);
  prompt.ids.resize(all);
  Engine engine(std::move(c.model), c.tokenizer, Options(), nullptr);
  const auto ask = [&](int commit_tokens) {
    Request r = MakeRequest(absl::StrCat(commit_tokens), prompt, 1);
    r.stop.ignore_eos = true;
    r.policy = Parse(absl::StrCat("h2o(tokens=", limit, ", recent=0.3)"));
    r.commit_tokens = commit_tokens;
    r.explain = true;
    return testing::Ask(engine, std::move(r)).last;
  };
  const Event late = ask(all), early = ask(commit);
  ASSERT_TRUE(late.status.ok() && early.status.ok());
  EXPECT_EQ(early.usage.evicted_text + early.usage.evicted_vision, kEvictTokens);
  std::set<std::vector<uint8_t>> different;
  for (int l = 0; l < 8; ++l) {
    EXPECT_EQ(early.explanation->layers[l].stored, late.explanation->layers[l].stored) << l;
    different.insert(late.explanation->layers[l].stored);
    // Every row and head gives one away; the score was as at the commit.
    const std::vector<float>& scores = late.explanation->layers[l].scores;
    ASSERT_EQ(static_cast<int>(scores.size()), all);
    const double given = 4.0 * all;
    EXPECT_NEAR(std::accumulate(scores.begin(), scores.end(), 0.0), given, given * given * 0x1p-23);
  }
  EXPECT_EQ(late.explanation->score_name, "attention received");
  EXPECT_GT(different.size(), 1u);
}

}  // namespace
}  // namespace tessera
