#include "cache/policy/policy_text.h"

#include <cmath>
#include <random>
#include <string>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

using Kind = ParameterSpec::Kind;
constexpr ParameterSpec kSpecs[] = {
    {"window", Kind::kInteger, 128, 0, 65536, "", "newest tokens at 16 bit"},
    {"keep", Kind::kReal, 0.2, 0.0, 1.0, "", "share of tokens that stay"},
    {"scope", Kind::kChoice, 0, 0, 0, "all|visual", "which tokens may go"},
    {"beta", Kind::kReal, -1.5, -10, 10, "", ""},
};

absl::StatusOr<PolicyArguments> Bind(absl::string_view text) {
  const auto stages = ParsePolicyText(text);
  if (!stages.ok()) return stages.status();
  EXPECT_EQ(stages->size(), 1u);
  return PolicyArguments::Bind(stages->front(), kSpecs);
}
std::string ErrorOf(absl::string_view text) {
  const auto bound = Bind(text);
  EXPECT_FALSE(bound.ok()) << text;
  return std::string(bound.status().message());
}

TEST(PolicyText, ReadsStagesAndArguments) {
  const auto stages = ParsePolicyText(" a_1 ( x = 1 ,y=-2e+5 )+ b+c() ");
  ASSERT_TRUE(stages.ok()) << stages.status();
  ASSERT_EQ(stages->size(), 3u);
  EXPECT_EQ((*stages)[0].name, "a_1");
  EXPECT_THAT((*stages)[0].arguments,
              testing::ElementsAre(testing::Pair("x", "1"), testing::Pair("y", "-2e+5")));
  EXPECT_EQ((*stages)[1].name, "b");
  EXPECT_EQ((*stages)[2].name, "c");
  EXPECT_TRUE((*stages)[2].arguments.empty());
}

TEST(PolicyText, SyntaxErrorsSayWhere) {
  const auto error = [](absl::string_view text) {
    return std::string(ParsePolicyText(text).status().message());
  };
  EXPECT_EQ(error("a("), "kv policy 'a(': expected a parameter name at byte 2, found the end");
  EXPECT_EQ(error("a(x)"), "kv policy 'a(x)': expected '=' at byte 3, found ')'");
  EXPECT_EQ(error("a(x=)"), "kv policy 'a(x=)': expected a value at byte 4, found ')'");
  EXPECT_EQ(error("a(x=1"), "kv policy 'a(x=1': expected ',' or ')' at byte 5, found the end");
  EXPECT_EQ(error("a(x=1,)"),
            "kv policy 'a(x=1,)': expected a parameter name at byte 6, found ')'");
  EXPECT_EQ(error("a(x=1 2)"), "kv policy 'a(x=1 2)': expected ',' or ')' at byte 6, found '2'");
  EXPECT_EQ(error("a+"), "kv policy 'a+': expected a policy name at byte 2, found the end");
  EXPECT_EQ(error("a b"), "kv policy 'a b': expected '+' or the end at byte 2, found 'b'");
  EXPECT_EQ(error("A"), "kv policy 'A': expected a policy name at byte 0, found 'A'");
  EXPECT_EQ(error(absl::string_view("a\0", 2)),
            "kv policy 'a\\x00': expected '+' or the end at byte 1, found '\\x00'");
  EXPECT_EQ(error("\xff"), "kv policy '\\xff': expected a policy name at byte 0, found '\\xff'");
}

TEST(PolicyText, LengthIsLimited) {
  EXPECT_TRUE(ParsePolicyText(std::string(256, 'a')).ok());
  EXPECT_EQ(ParsePolicyText(std::string(257, 'a')).status().message(),
            "kv policy: text of 257 bytes, the limit is 256");
}

TEST(PolicyText, DefaultsAndGivenValues) {
  auto bound = Bind("p");
  ASSERT_TRUE(bound.ok());
  EXPECT_EQ(bound->Integer("window"), 128);
  EXPECT_EQ(bound->Real("keep"), 0.2);
  EXPECT_EQ(bound->Choice("scope"), "all");
  EXPECT_FALSE(bound->Given("window"));
  EXPECT_EQ(bound->Canonical("p"), "p");
  bound = Bind("p(scope=visual, keep=.5, window=128)");
  ASSERT_TRUE(bound.ok()) << bound.status();
  EXPECT_EQ(bound->Choice("scope"), "visual");
  EXPECT_EQ(bound->Real("keep"), 0.5);
  EXPECT_TRUE(bound->Given("window"));
  EXPECT_EQ(bound->Canonical("p"), "p(keep=0.5, scope=visual)");
  EXPECT_DEATH(bound->Integer("keep"), "check failed");
  EXPECT_DEATH(bound->Real("gamma"), "check failed");
}

TEST(PolicyText, BindErrorsAreExact) {
  EXPECT_EQ(ErrorOf("p(windw=64)"),
            "kv policy 'p': unknown parameter 'windw'; did you mean 'window'? known: window, keep, "
            "scope, beta");
  EXPECT_EQ(ErrorOf("p(zzz=1)"),
            "kv policy 'p': unknown parameter 'zzz'; known: window, keep, scope, beta");
  EXPECT_EQ(ErrorOf("p(keep=0.1,keep=0.1)"), "kv policy 'p': parameter 'keep' is given twice");
  EXPECT_EQ(ErrorOf("p(scope=visua)"),
            "kv policy 'p': parameter 'scope': unknown value 'visua'; did you mean 'visual'? "
            "known: all, visual");
  for (const char* bad : {"two", "1.5", "1x", "+1", "0x10", "--1", "-", "1e3"}) {
    EXPECT_EQ(ErrorOf(std::string("p(window=") + bad + ")"),
              std::string("kv policy 'p': parameter 'window': '") + bad + "' is not an integer");
  }
  for (const char* bad : {"half", "0.5f", "1.2.3", ".", "nan", "-nan", "e5", "0x1p3"}) {
    EXPECT_EQ(ErrorOf(std::string("p(keep=") + bad + ")"),
              std::string("kv policy 'p': parameter 'keep': '") + bad + "' is not a number");
  }
  for (const char* bad : {"65537", "-1", "9223372036854775808", "-99999999999999999999"}) {
    EXPECT_EQ(ErrorOf(std::string("p(window=") + bad + ")"),
              std::string("kv policy 'p': parameter 'window': ") + bad + " is outside [0, 65536]");
  }
  for (const char* bad : {"1.0000001", "-0.1", "inf", "-inf", "1e999"}) {
    EXPECT_EQ(ErrorOf(std::string("p(keep=") + bad + ")"),
              std::string("kv policy 'p': parameter 'keep': ") + bad + " is outside [0, 1]");
  }
}

TEST(PolicyText, CanonicalTextReadsBackAsTheSameValues) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 2000; ++i) {
    const double beta = std::ldexp(static_cast<double>(static_cast<int64_t>(random())), -60);
    const double keep = static_cast<double>(random() >> 11) * 0x1p-53;
    PolicyStage stage{"p", {}};
    char text[64];
    std::snprintf(text, sizeof text, "%.17g", beta);
    stage.arguments.emplace_back("beta", text);
    std::snprintf(text, sizeof text, "%.17g", keep);
    stage.arguments.emplace_back("keep", text);
    stage.arguments.emplace_back("window", std::to_string(random() % 65537));
    const auto bound = PolicyArguments::Bind(stage, kSpecs);
    ASSERT_TRUE(bound.ok()) << bound.status();
    const auto again = Bind(bound->Canonical("p"));
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->Real("beta"), beta);
    EXPECT_EQ(again->Real("keep"), keep);
    EXPECT_EQ(again->Integer("window"), bound->Integer("window"));
    EXPECT_EQ(again->Canonical("p"), bound->Canonical("p"));
  }
}

TEST(PolicyText, DescribesParameters) {
  EXPECT_EQ(DescribeParameters(kSpecs), "window=128, keep=0.2, scope=all, beta=-1.5");
  EXPECT_EQ(DescribeParameters({}), "");
}

}  // namespace
}  // namespace tessera
