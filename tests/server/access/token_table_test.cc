#include "server/access/token_table.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/certificates.h"

namespace tessera {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

std::string Hash(absl::string_view token) {
  return HexDigest(Hasher().Add(token.data(), token.size()).Finish());
}

TEST(TokenTableTest, ReadsTenantsAndTheirLimits) {
  const auto table = TokenTable::Parse(absl::StrCat(
      "# who may call\n\n  ", Hash("hello"),
      " alice requests_per_minute=60 concurrent=4\tmax_tokens=512 policies=rtn,none\r\n",
      Hash("world"), " ops admin  # the operators\n"));
  ASSERT_TRUE(table.ok()) << table.status();
  ASSERT_EQ((*table)->tenants().size(), 2u);
  const Tenant* alice = (*table)->Find("hello");
  ASSERT_NE(alice, nullptr);
  EXPECT_EQ(alice->name, "alice");
  EXPECT_EQ(alice->limits.requests_per_minute, 60);
  EXPECT_EQ(alice->limits.concurrent, 4);
  EXPECT_EQ(alice->limits.max_tokens, 512);
  EXPECT_THAT(alice->limits.policies, ElementsAre("none", "rtn"));
  EXPECT_FALSE(alice->limits.admin);
  const Tenant* ops = (*table)->Find("world");
  ASSERT_NE(ops, nullptr);
  EXPECT_TRUE(ops->limits.admin);
  EXPECT_EQ(ops->limits.requests_per_minute, 0);
}

TEST(TokenTableTest, FindsTheWholeTokenOnly) {
  const auto table = TokenTable::Parse(Hash("hello") + " a");
  ASSERT_TRUE(table.ok()) << table.status();
  for (const std::string& wrong :
       {std::string(), std::string("hell"), std::string("hello "), std::string("Hello"),
        std::string("hello\0", 6), Hash("hello")}) {
    EXPECT_EQ((*table)->Find(wrong), nullptr) << wrong;
  }
  EXPECT_NE((*table)->Find("hello"), nullptr);
}

// The known answer, so that operators can make lines with sha256sum.
TEST(TokenTableTest, TheHashIsPlainSha256) {
  const auto table = TokenTable::Parse(
      "2CF24DBA5FB0A30E26E83B2AC5B9E29E1B161E5C1FA7425E73043362938B9824 upper_case_too");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_NE((*table)->Find("hello"), nullptr);
}

TEST(TokenTableTest, ATokenIsReplacedWithoutAGap) {
  const auto table = TokenTable::Parse(
      absl::StrCat(Hash("old"), " alice concurrent=2\n", Hash("new"), " alice concurrent=2\n"));
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ((*table)->Find("old"), (*table)->Find("new"));
  EXPECT_EQ((*table)->tenants().size(), 1u);
}

TEST(TokenTableTest, NamesTheLineThatIsWrong) {
  const std::string good = Hash("x") + " bob";
  const std::pair<std::string, const char*> kCases[] = {
      {"", "no token in it"},
      {"# nothing\n", "no token in it"},
      {good + "\nabc carol", "line 2: want the SHA-256 of a token"},
      {std::string(64, 'g') + " carol", "line 1: want the SHA-256 of a token"},
      {Hash("y"), "line 1: want a name"},
      {Hash("y") + " " + std::string(65, 'n'), "line 1: a name has 1 to 64"},
      {Hash("y") + " a:b", "line 1: a name has"},
      {"\n\n" + good + " fast", "line 3: \"fast\" is an unknown limit"},
      {good + " concurrent=0", "line 1: concurrent: want a number from 1"},
      {good + " concurrent=-1", "concurrent: want a number from 1"},
      {good + " max_tokens=99999999999", "max_tokens: want a number from 1"},
      {good + " requests_per_minute=", "requests_per_minute: want a number"},
      {good + " policies=", "policies: \"\" is an unknown policy"},
      {good + " policies=none,zip", "policies: \"zip\" is an unknown policy"},
      {good + " admin admin", "admin is given twice"},
      {good + " concurrent=1 concurrent=2", "concurrent is given twice"},
      {good + "\n" + good, "line 2: an earlier line has this hash"},
      {good + "\n" + Hash("y") + " bob admin", "line 2: an earlier line gives bob other limits"},
  };
  for (const auto& [text, message] : kCases) {
    const auto table = TokenTable::Parse(text);
    ASSERT_FALSE(table.ok()) << text;
    EXPECT_THAT(std::string(table.status().message()), HasSubstr(message));
  }
}

// Somebody will put in the token itself one day; the log must not then hold it.
TEST(TokenTableTest, AMisplacedTokenIsNotRepeated) {
  const auto table = TokenTable::Parse("my-secret-token alice");
  ASSERT_FALSE(table.ok());
  EXPECT_THAT(std::string(table.status().message()), Not(HasSubstr("my-secret-token")));
}

TEST(TokenTableTest, HasALimit) {
  std::string text;
  for (int i = 0; i < 4097; ++i) absl::StrAppend(&text, Hash(absl::StrCat(i)), " t\n");
  const auto table = TokenTable::Parse(text);
  ASSERT_FALSE(table.ok());
  EXPECT_THAT(std::string(table.status().message()), HasSubstr("line 4097: more than 4096"));
}

TEST(TokenTableTest, ErrorsOfAFileNameIt) {
  const TestCertificates folder;
  folder.Write("tokens", "nonsense\n");
  const auto read = TokenTable::Read(folder.Path("tokens"));
  EXPECT_THAT(std::string(read.status().message()), HasSubstr("tokens: line 1: "));
  EXPECT_EQ(TokenTable::Read("/nonexistent").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace tessera
