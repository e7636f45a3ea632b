#include "client/cli/format.h"

#include "client/cli/terminal.h"
#include "client/load/percentile.h"
#include "gtest/gtest.h"

namespace tessera::client {
namespace {

TEST(ClientFormat, Seconds) {
  EXPECT_EQ(FormatSeconds(0.00085), "850 us");
  EXPECT_EQ(FormatSeconds(0.0412), "41.20 ms");
  EXPECT_EQ(FormatSeconds(0.25), "250 ms");
  EXPECT_EQ(FormatSeconds(0.9999), "1.00 s");
  EXPECT_EQ(FormatSeconds(125), "2 min 05 s");
  EXPECT_EQ(FormatSeconds(3 * 3600 + 240), "3 h 04 min");
  EXPECT_EQ(FormatSeconds(50 * 3600), "2 d 02 h");
}

TEST(ClientFormat, Count) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(11300000), "11,300,000");
  EXPECT_EQ(FormatCount(-1234), "-1,234");
  EXPECT_EQ(FormatCount(-123), "-123");
}

TEST(ClientFormat, TableAlignsByCharacters) {
  Table table({"name", "n"});
  table.AddRow({"é", "10"});
  table.AddRow({"long name", "1"});
  EXPECT_EQ(table.Render(),
            "name        n\n"
            "-------------\n"
            "é          10\n"
            "long name   1\n");
}

TEST(ClientPercentile, InterpolatesBetweenRanks) {
  const std::vector<double> values = {1, 2, 3, 4};
  EXPECT_DOUBLE_EQ(Quantile(values, 0), 1);
  EXPECT_DOUBLE_EQ(Quantile(values, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(Quantile(values, 0.9), 1 + 0.9 * 3);
  EXPECT_DOUBLE_EQ(Quantile(values, 1), 4);
  EXPECT_DOUBLE_EQ(Quantile({7}, 0.99), 7);
}

TEST(ClientPercentile, SummarizesUnsortedValues) {
  const Summary summary = Summarize({30, 10, 20});
  EXPECT_EQ(summary.count, 3);
  EXPECT_DOUBLE_EQ(summary.mean, 20);
  EXPECT_DOUBLE_EQ(summary.min, 10);
  EXPECT_DOUBLE_EQ(summary.p50, 20);
  EXPECT_DOUBLE_EQ(summary.max, 30);
  EXPECT_EQ(ToJson(Summarize({})).dump(), R"({"count":0})");
}

TEST(ClientTerminal, StyleOnlyOnTerminals) {
  EXPECT_EQ(Style(false).Red("x"), "x");
  EXPECT_EQ(Style(true).Red("x"), "\033[31mx\033[0m");
}

TEST(ClientTerminal, PrintableDropsEscapes) {
  EXPECT_EQ(Printable("a\033[31mb\n\tc\x7f"), "a[31mb\n\tc");
  EXPECT_EQ(Printable("\xC2\x9B"
                      "31m é \xC2\xA0"),
            "31m é \xC2\xA0");
}

TEST(ClientTerminal, ProgressFitsItsColumns) {
  const std::string line = RenderProgress({50, 100, 2, 10}, 60);
  EXPECT_NE(line.find("50/100  5.0/s  2 failed  10.00 s left"), std::string::npos) << line;
  const size_t close = line.find(']');
  ASSERT_NE(close, std::string::npos);
  const size_t filled = line.find(' ') - 1;
  EXPECT_EQ(filled, (close - 1) / 2);
  for (int columns = 0; columns < 100; ++columns) {
    EXPECT_LE(static_cast<int>(RenderProgress({50, 100, 2, 10}, columns).size()), columns);
    EXPECT_LE(static_cast<int>(RenderProgress({7, 0, 0, 0}, columns).size()), columns);
  }
}

}  // namespace
}  // namespace tessera::client
