#include "client/cli/options.h"

#include "client/rpc/generation_options.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Targets {
  bool flag = false;
  int count = 3;
  std::optional<int> maybe;
  std::optional<double> share;
  std::optional<uint64_t> seed;
  std::string text = "t";
  absl::Duration time = absl::Seconds(5);
  std::vector<std::string> each;
};

Options Make(Targets* t) {
  Options options("test", "Summary.");
  options.Add("flag", &t->flag, "a flag");
  options.Add("count", &t->count, Range<int>{1, 10}, "a count");
  options.Add("maybe", &t->maybe, Range<int>{0}, "maybe");
  options.Add("share", &t->share, Range<double>{0, 1}, "a share");
  options.Add("seed", &t->seed, "a seed");
  options.Add("text", "TEXT", &t->text, "a text");
  options.Add("time", &t->time, "a time");
  options.AddEach(
      "each", "X",
      [t](absl::string_view x) -> absl::Status {
        t->each.emplace_back(x);
        return absl::OkStatus();
      },
      "each");
  return options;
}

TEST(ClientOptions, ParsesEveryType) {
  Targets t;
  Options options = Make(&t);
  ASSERT_TRUE(options
                  .Parse({"--flag", "--count", "7", "--maybe=0", "--share", "0.25", "--seed",
                          "18446744073709551615", "--text=a=b", "--time", "1.5m", "--each", "1",
                          "--each=--2"})
                  .ok());
  EXPECT_TRUE(t.flag);
  EXPECT_EQ(t.count, 7);
  EXPECT_EQ(t.maybe, 0);
  EXPECT_EQ(t.share, 0.25);
  EXPECT_EQ(t.seed, ~uint64_t{0});
  EXPECT_EQ(t.text, "a=b");
  EXPECT_EQ(t.time, absl::Seconds(90));
  EXPECT_THAT(t.each, ElementsAre("1", "--2"));
  EXPECT_TRUE(options.given("count"));
}

TEST(ClientOptions, FlagCanBeSetToFalse) {
  Targets t;
  t.flag = true;
  ASSERT_TRUE(Make(&t).Parse({"--flag=false"}).ok());
  EXPECT_FALSE(t.flag);
}

struct BadCase {
  Args args;
  const char* message;
};

class ClientOptionsBad : public testing::TestWithParam<BadCase> {};

TEST_P(ClientOptionsBad, IsNamed) {
  Targets t;
  const absl::Status status = Make(&t).Parse(GetParam().args);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    All, ClientOptionsBad,
    testing::Values(
        BadCase{{"--nope"}, "unknown option --nope"},
        BadCase{{"word"}, "unexpected argument \"word\""},
        BadCase{{"--"}, "unexpected argument \"--\""},
        BadCase{{"--count"}, "--count needs a value"},
        BadCase{{"--count", "0"}, "--count: 0 is not between 1 and 10"},
        BadCase{{"--count", "7x"}, "--count: \"7x\" is not a whole number"},
        BadCase{{"--count", ""}, "--count: \"\" is not a whole number"},
        BadCase{{"--count=2", "--count=2"}, "--count is given twice"},
        BadCase{{"--maybe", "-1"}, "--maybe: -1 is not between 0 and 2147483647"},
        BadCase{{"--maybe", "3000000000"}, "--maybe: 3000000000 is not between 0 and 2147483647"},
        BadCase{{"--share", "nan"}, "--share: \"nan\" is not a finite number"},
        BadCase{{"--share", "1e400"}, "--share: \"1e400\" is not a finite number"},
        BadCase{{"--share", "1.5"}, "--share: 1.5 is not between 0 and 1"},
        BadCase{{"--seed", "-1"}, "--seed: \"-1\" is not a whole number from 0 to 2^64-1"},
        BadCase{{"--flag=maybe"}, "--flag: \"maybe\" is neither true nor false"},
        BadCase{{"--time", "5"}, "--time: \"5\" is not a time such as 500ms, 30s or 1.5m"},
        BadCase{{"--time", "-5s"}, "--time: \"-5s\" is not a time such as 500ms, 30s or 1.5m"},
        BadCase{{"--time", "inf"}, "--time: \"inf\" is not a time such as 500ms, 30s or 1.5m"}));

TEST(ClientOptions, HelpListsEveryOption) {
  Targets t;
  Options options = Make(&t);
  ASSERT_TRUE(options.Parse({"--help", "--nope"}).ok());
  EXPECT_TRUE(options.help_requested());
  const std::string help = options.Help();
  for (const char* text : {"usage: tessera test [options]", "Summary.", "--flag ", "--count N",
                           "(default 3)", "--time TIME", "(default 5s)", "(repeatable)"}) {
    EXPECT_THAT(help, HasSubstr(text));
  }
}

TEST(ClientGenerationOptions, ReachTheRequest) {
  GenerationOptions generation;
  Options options("test", "");
  generation.Register(&options);
  ASSERT_TRUE(options
                  .Parse({"--max_tokens=5", "--min_tokens=2", "--temperature=0.5", "--top_k=7",
                          "--top_p=0.9", "--min_p=0.1", "--repetition_penalty=1.1",
                          "--presence_penalty=-1", "--frequency_penalty=2", "--seed=9", "--stop=a",
                          "--stop=b", "--ignore_eos", "--kv_policy=none", "--commit_at=question",
                          "--model=m", "--priority=-3", "--bypass_prefix", "--cache_salt=s"})
                  .ok());
  v1::GenerateRequest request;
  generation.Apply(&request);
  EXPECT_EQ(
      request.ShortDebugString(),
      "model: \"m\" sampling { temperature: 0.5 top_k: 7 top_p: 0.9 min_p: 0.1 "
      "repetition_penalty: 1.1 presence_penalty: -1 frequency_penalty: 2 seed: 9 } stopping { "
      "max_tokens: 5 min_tokens: 2 stop: \"a\" stop: \"b\" ignore_eos: true } kv_policy { "
      "text: \"none\" commit_at: COMMIT_AT_QUESTION } cache { bypass_prefix: true salt: \"s\" } "
      "priority: -3");
}

TEST(ClientGenerationOptions, CommitAtIsOneOfTwo) {
  GenerationOptions generation;
  Options options("test", "");
  generation.Register(&options);
  const absl::Status status = options.Parse({"--commit_at=end"});
  EXPECT_EQ(status.message(), "--commit_at: \"end\" is neither prompt nor question");
}

TEST(ClientGenerationOptions, UnsetFieldsAreNotSent) {
  v1::GenerateRequest request;
  GenerationOptions().Apply(&request);
  EXPECT_FALSE(request.sampling().has_temperature());
  EXPECT_FALSE(request.stopping().has_max_tokens());
  EXPECT_FALSE(request.has_kv_policy());
  EXPECT_FALSE(request.has_cache());
}

}  // namespace
}  // namespace tessera::client
