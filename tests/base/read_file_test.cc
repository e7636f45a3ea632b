#include "base/read_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/support/status_matchers.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class ReadFileTest : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  std::string Write(const std::string& content) {
    std::ofstream(folder_ + "/file", std::ios::binary) << content;
    return folder_ + "/file";
  }

  const std::string folder_ = testing::TempDir() + "/read_file_test_" + std::to_string(getpid());
};

TEST_F(ReadFileTest, ReturnsEveryByte) {
  for (const size_t size : {0, 1, 4095, 4096, 4097, 100'000}) {
    std::string content(size, '\0');
    for (size_t i = 0; i < size; ++i) content[i] = static_cast<char>(i * 7);
    EXPECT_EQ(*ReadFile(Write(content), static_cast<int64_t>(size)), content);
  }
}

TEST_F(ReadFileTest, FollowsLinks) {
  fs::create_symlink(Write("12345"), folder_ + "/link");
  EXPECT_EQ(*ReadFile(folder_ + "/link", 5), "12345");
}

// Such files say that they hold 0 bytes.
TEST_F(ReadFileTest, ReadsFilesOfProc) {
  const auto text = ReadFile("/proc/self/stat", 1 << 20);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_GT(text->size(), 20u);
  EXPECT_TRUE(Fails(ReadFile("/proc/self/stat", 8), kInvalid, {"more than 8"}));
}

TEST_F(ReadFileTest, NamesPathAndReason) {
  const std::string path = Write("1234567");
  EXPECT_TRUE(Fails(ReadFile(path, 6), kInvalid, {path, "7 bytes, more than 6"}));
  EXPECT_TRUE(Fails(ReadFile(path + "x", 6), absl::StatusCode::kNotFound,
                    {path + "x: No such file or directory"}));
  EXPECT_TRUE(Fails(ReadFile(folder_, 6), kInvalid, {folder_, "not a regular file"}));
}

// A reader that waits for a writer would hang here.
TEST_F(ReadFileTest, RefusesAPipeAtOnce) {
  const std::string path = folder_ + "/pipe";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_TRUE(Fails(ReadFile(path, 6), kInvalid, {"not a regular file"}));
}

TEST_F(ReadFileTest, NoPermission) {
  constexpr uid_t kUser = 65534;  // root may read every file, so become a plain user meanwhile
  const std::string path = Write("x");
  ASSERT_EQ(chmod(path.c_str(), 0), 0);
  const bool root = geteuid() == 0;
  if (root) {
    ASSERT_EQ(seteuid(kUser), 0);
  }
  const auto code = ReadFile(path, 6).status().code();
  if (root) {
    ASSERT_EQ(seteuid(0), 0);
  }
  EXPECT_EQ(code, absl::StatusCode::kPermissionDenied);
}

}  // namespace
}  // namespace tessera
