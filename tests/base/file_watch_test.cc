#include "base/file_watch.h"

#include <filesystem>

#include "base/read_file.h"
#include "gtest/gtest.h"
#include "tests/server/certificates.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

TEST(FileWatchTest, SeesEachChangeOnce) {
  const TestCertificates folder;
  folder.Write("a", "1");
  FileWatch watch({folder.Path("a"), "", folder.Path("b")});
  EXPECT_FALSE(watch.Changed());
  folder.Write("a", "22");
  EXPECT_TRUE(watch.Changed());
  EXPECT_FALSE(watch.Changed());
  folder.Write("b", "comes");
  EXPECT_TRUE(watch.Changed());
  fs::remove(folder.Path("b"));
  EXPECT_TRUE(watch.Changed());
  EXPECT_FALSE(watch.Changed());
}

// How Kubernetes renews what it mounts: a link to a folder, replaced as a whole.
TEST(FileWatchTest, FollowsLinks) {
  const TestCertificates folder;
  for (const char* version : {"v1", "v2"}) {
    fs::create_directory(folder.Path(version));
    folder.Write(std::string(version) + "/file", "same size");
  }
  fs::create_directory_symlink("v1", folder.Path("data"));
  fs::create_symlink("data/file", folder.Path("file"));
  FileWatch watch({folder.Path("file")});
  fs::create_directory_symlink("v2", folder.Path("next"));
  fs::rename(folder.Path("next"), folder.Path("data"));
  EXPECT_TRUE(watch.Changed());
}

TEST(ReadSmallFileTest, SaysWhatIsWrong) {
  const TestCertificates folder;
  folder.Write("file", "12345");
  EXPECT_EQ(*ReadSmallFile(folder.Path("file"), 5), "12345");
  EXPECT_EQ(ReadSmallFile(folder.Path("file"), 4).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReadSmallFile(folder.Path("none"), 4).status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(ReadSmallFile(folder.Path(""), 4).ok());  // a folder
}

}  // namespace
}  // namespace tessera
