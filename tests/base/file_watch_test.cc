#include "base/file_watch.h"

#include <filesystem>

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

// Kubernetes renews mounted files by replacing a link to their folder.
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

}  // namespace
}  // namespace tessera
