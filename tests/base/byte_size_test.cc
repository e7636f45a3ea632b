#include "base/byte_size.h"

#include "gtest/gtest.h"

namespace tessera {
namespace {

TEST(ByteSizeTest, ReadsWhatPeopleWrite) {
  const std::pair<const char*, int64_t> kCases[] = {{"0", 0},
                                                    {"1048576", 1 << 20},
                                                    {"17B", 17},
                                                    {"512MiB", 512 << 20},
                                                    {"2GiB", int64_t{2} << 30},
                                                    {"1 TiB", int64_t{1} << 40},
                                                    {"3kib", 3 << 10},
                                                    {"9223372036854775807", INT64_MAX}};
  for (const auto& [text, bytes] : kCases) {
    const auto parsed = ParseByteSize(text);
    ASSERT_TRUE(parsed.ok()) << text << ": " << parsed.status();
    EXPECT_EQ(*parsed, bytes) << text;
  }
}

TEST(ByteSizeTest, RefusesWhatIsUnclear) {
  for (const char* text : {"", "GiB", "-1", "+1", "1.5GiB", "1GB", "1G", "1 x", "0x10", "1GiB ",
                           "9223372036854775808", "9223372036854775807KiB", "8388608TiB"}) {
    EXPECT_FALSE(ParseByteSize(text).ok()) << text;
  }
}

TEST(ByteSizeTest, FormatReadsBack) {
  for (const int64_t bytes :
       {int64_t{0}, int64_t{1}, int64_t{1023}, int64_t{1024}, int64_t{3} << 20,
        (int64_t{1} << 30) + 1, int64_t{5} << 40, INT64_MAX}) {
    const auto back = ParseByteSize(FormatByteSize(bytes));
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(*back, bytes);
  }
  EXPECT_EQ(FormatByteSize(512 << 20), "512MiB");
}

TEST(ByteSizeTest, RoundsForPeople) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.0 KiB");
  EXPECT_EQ(FormatBytes(1024 * 1024 - 1), "1.0 MiB");
  EXPECT_EQ(FormatBytes(int64_t{5} << 39), "2.5 TiB");
}

}  // namespace
}  // namespace tessera
