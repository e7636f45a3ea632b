#include "engine/text/stop_matcher.h"

#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

TEST(StopMatcher, WithoutStopsTextPassesAtOnce) {
  StopMatcher matcher({}, false);
  const auto result = matcher.Add("héllo");
  EXPECT_EQ(result.text, "héllo");
  EXPECT_EQ(result.matched, -1);
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher matcher({"END"}, false);
  EXPECT_EQ(matcher.Add("aE").text, "a");
  EXPECT_EQ(matcher.Add("N").text, "");
  EXPECT_EQ(matcher.Add("E").text, "EN");  // the new E may begin the stop string
  EXPECT_EQ(matcher.Add("x").text, "Ex");
  EXPECT_EQ(matcher.Add("E").text, "");
  EXPECT_EQ(matcher.Finish(), "E");
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopMatcher, FindsAStopAcrossPieces) {
  for (bool include : {false, true}) {
    StopMatcher matcher({"never", "\n\nQ:"}, include);
    EXPECT_EQ(matcher.Add("answer\n").text, "answer");
    EXPECT_EQ(matcher.Add("\n").text, "");
    EXPECT_EQ(matcher.Add("Q").matched, -1);
    const auto result = matcher.Add(": next");
    EXPECT_EQ(result.matched, 1);
    EXPECT_EQ(matcher.stop(result.matched), "\n\nQ:");
    EXPECT_EQ(result.text, include ? "\n\nQ:" : "");
    EXPECT_EQ(matcher.Finish(), "");
  }
}

TEST(StopMatcher, TheEarliestWinsThenTheLongest) {
  StopMatcher earliest({"cd", "bcde"}, false);
  auto result = earliest.Add("abcdef");
  EXPECT_EQ(result.matched, 1);
  EXPECT_EQ(result.text, "a");
  StopMatcher longest({"\n", "\n\n"}, true);
  result = longest.Add("a\n\nb");
  EXPECT_EQ(result.matched, 1);
  EXPECT_EQ(result.text, "a\n\n");
}

TEST(StopMatcher, StopsAtOnceWithoutWaitingForALongerOne) {
  StopMatcher matcher({"\n", "\n\n"}, true);
  const auto result = matcher.Add("a\n");
  EXPECT_EQ(result.matched, 0);
  EXPECT_EQ(result.text, "a\n");
  EXPECT_DEATH(matcher.Add("\n"), "check failed");
}

TEST(StopMatcher, WorksInsideUtf8) {
  StopMatcher matcher({"é€"}, false);  // c3 a9 | e2 82 ac
  EXPECT_EQ(matcher.Add("caf").text, "caf");
  EXPECT_EQ(matcher.Add("\xc3").text, "");
  EXPECT_EQ(matcher.Add("\xa9\xe2").text, "");
  EXPECT_EQ(matcher.Add("\x82").text, "");
  EXPECT_EQ(matcher.Add("\xac!").matched, 0);
  StopMatcher other({"é"}, false);
  EXPECT_EQ(other.Add("è").text, "è");  // the same first byte, but another character
}

TEST(StopMatcherDeath, EmptyStopsAreACheck) {
  EXPECT_DEATH(StopMatcher({"a", ""}, false), "check failed");
}

// Holds the header's promises by a search through the whole text after every piece.
struct Expected {
  std::string sent;  // all text sent so far
  int matched = -1;
};
Expected Naive(const std::string& text, const std::vector<std::string>& stops, bool include) {
  size_t begin = std::string::npos;
  int matched = -1;
  for (size_t s = 0; s < stops.size(); ++s) {
    const size_t at = text.find(stops[s]);
    if (at == std::string::npos) continue;
    if (matched < 0 || at < begin || (at == begin && stops[s].size() > stops[matched].size())) {
      begin = at;
      matched = static_cast<int>(s);
    }
  }
  if (matched >= 0) return {text.substr(0, begin) + (include ? stops[matched] : ""), matched};
  for (size_t hold = text.size(); hold > 0; --hold) {
    for (const std::string& stop : stops) {
      if (hold < stop.size() && absl::StartsWith(stop, text.substr(text.size() - hold))) {
        return {text.substr(0, text.size() - hold), -1};
      }
    }
  }
  return {text, -1};
}

TEST(StopMatcher, AgreesWithANaiveSearchOnRandomTexts) {
  const std::vector<std::string> letters = {"a", "b", "é", "è", "😀"};
  std::mt19937 random(11);
  int matches = 0;
  const auto word = [&](size_t most) {
    std::string text;
    const size_t length = 1 + random() % most;
    for (size_t i = 0; i < length; ++i) text += letters[random() % (1 + random() % letters.size())];
    return text;
  };
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops;
    for (size_t i = random() % 5; i-- > 0;) stops.push_back(word(6));
    const bool include = random() % 2 == 0, split_characters = random() % 2 == 0;
    StopMatcher matcher(stops, include);
    std::string text, sent;
    int matched = -1;
    for (int piece = 0; piece < 12 && matched < 0; ++piece) {
      std::string next = word(4);
      if (split_characters) next = next.substr(0, 1 + random() % next.size());
      text += next;
      const auto result = matcher.Add(next);
      const Expected expected = Naive(text, stops, include);
      sent += result.text;
      matched = result.matched;
      ASSERT_EQ(matched, expected.matched);
      ASSERT_EQ(sent, expected.sent);
      if (!split_characters && !result.text.empty()) {
        ASSERT_NE(static_cast<unsigned char>(result.text[0]) & 0xc0, 0x80) << "begins inside one";
      }
    }
    if (matched < 0) {
      ASSERT_EQ(sent + matcher.Finish(), text);
    }
    matches += matched >= 0;
  }
  EXPECT_GT(matches, 5000);
  EXPECT_LT(matches, 15000);
}

}  // namespace
}  // namespace tessera
