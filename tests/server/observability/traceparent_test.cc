#include "server/observability/traceparent.h"

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

constexpr char kGood[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

TEST(TraceparentTest, WellFormedOnesStay) {
  EXPECT_EQ(Traceparent(kGood), kGood);
  const std::string later = absl::StrCat("cc", kGood + 2);
  EXPECT_EQ(Traceparent(later), later);
  EXPECT_EQ(Traceparent(absl::StrCat(later, "-what-the-future-will-be-like")), later);
}

TEST(TraceparentTest, OthersAreNotLogged) {
  const std::string good = kGood;
  EXPECT_EQ(Traceparent(""), "");
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = bad[i] == '-' ? '0' : 'G';
    EXPECT_EQ(Traceparent(bad), "") << bad;
    EXPECT_EQ(Traceparent(good.substr(0, i)), "") << i;
  }
  EXPECT_EQ(Traceparent(good + "-more"), "");  // version 00 ends there
  EXPECT_EQ(Traceparent(good + "0"), "");
  EXPECT_EQ(Traceparent(absl::StrCat("cc", good.substr(2), ".x")), "");
  EXPECT_EQ(Traceparent(absl::StrCat("ff", good.substr(2))), "");
  EXPECT_EQ(Traceparent(absl::StrCat("00-", std::string(32, '0'), good.substr(35))), "");
  EXPECT_EQ(Traceparent(absl::StrCat(good.substr(0, 36), std::string(16, '0'), "-01")), "");
  EXPECT_EQ(Traceparent(absl::StrCat("00-0AF7", good.substr(7))), "");  // lower case only
}

}  // namespace
}  // namespace tessera
