// Tables of SECURITY.md and deploy/README.md name the tests that show each of their answers: they
// must exist.
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

// "Suite.Name" of every test of this binary, without the decoration of parameters.
std::set<std::string> Tests() {
  std::set<std::string> names;
  const auto* unit = testing::UnitTest::GetInstance();
  for (int i = 0; i < unit->total_test_suite_count(); ++i) {
    const auto* suite = unit->GetTestSuite(i);
    const std::vector<std::string> parts = absl::StrSplit(suite->name(), '/');
    const std::string suite_name = parts.size() > 1 ? parts[1] : parts[0];
    for (int j = 0; j < suite->total_test_count(); ++j) {
      const std::vector<std::string> name = absl::StrSplit(suite->GetTestInfo(j)->name(), '/');
      names.insert(absl::StrCat(suite_name, ".", name[0]));
    }
  }
  return names;
}

// `head`: the first cell of the table's first line, `least` as many rows as it has at least.
void ExpectTestsExist(const std::string& file, const std::string& head, int least) {
  const std::set<std::string> tests = Tests();
  ASSERT_TRUE(tests.contains("SecurityDocTest.EveryRowsTestsExist"));
  int rows = 0;
  bool table = false;
  const std::string begin = absl::StrCat("| ", head, " |");
  for (const absl::string_view line : absl::StrSplit(ReadTestFile(file), '\n')) {
    if (absl::StartsWith(line, begin)) table = true;
    if (line.empty()) table = false;
    if (!table || absl::StartsWith(line, begin) || absl::StartsWith(line, "|---")) continue;
    SCOPED_TRACE(line);
    const std::vector<absl::string_view> cells = absl::StrSplit(line, '|');
    ASSERT_EQ(cells.size(), 5u);  // with what is before the first bar and after the last
    ++rows;
    int named = 0;
    const std::vector<absl::string_view> pieces = absl::StrSplit(cells[3], '`');
    for (size_t i = 1; i < pieces.size(); i += 2) {  // what stands between backticks
      ++named;
      EXPECT_TRUE(tests.contains(std::string(pieces[i]))) << pieces[i];
    }
    EXPECT_GT(named, 0);
  }
  EXPECT_GE(rows, least);
}

TEST(SecurityDocTest, EveryRowsTestsExist) { ExpectTestsExist("SECURITY.md", "attack", 20); }

TEST(FaultsDocTest, EveryRowsTestsExist) { ExpectTestsExist("deploy/README.md", "fault", 13); }

}  // namespace
}  // namespace tessera
