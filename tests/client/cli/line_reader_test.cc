#include "client/cli/line_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>

#include "client/cli/line_feed.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::client {
namespace {

class ClientLines : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(pipe(fds_), 0); }
  void TearDown() override {
    close(fds_[0]);
    if (fds_[1] >= 0) close(fds_[1]);
  }
  void Write(const std::string& text) {
    ASSERT_EQ(write(fds_[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  void CloseInput() {
    close(fds_[1]);
    fds_[1] = -1;
  }
  int fds_[2];
};

TEST_F(ClientLines, SplitsLines) {
  Write("a\r\n\nlast");
  CloseInput();
  LineReader reader(fds_[0]);
  EXPECT_EQ(reader.Next(), "a");
  EXPECT_EQ(reader.Next(), "");
  EXPECT_EQ(reader.Next(), "last");
  EXPECT_EQ(reader.Next(), std::nullopt);
  EXPECT_EQ(reader.error(), "");
}

TEST_F(ClientLines, JoinsReadsIntoOneLine) {
  LineReader reader(fds_[0]);
  const std::string half(40000, 'x');
  std::thread writer([&] {
    Write(half);
    Write(half + "\n");
  });
  EXPECT_EQ(reader.Next(), half + half);
  writer.join();
}

TEST_F(ClientLines, StopEndsAWaitingRead) {
  LineReader reader(fds_[0]);
  Write("unfinished");
  std::thread stopper([&] { reader.Stop(); });
  EXPECT_EQ(reader.Next(), std::nullopt);
  stopper.join();
  EXPECT_EQ(reader.error(), "");
}

TEST_F(ClientLines, ReadErrorIsReported) {
  const int directory = open("/", O_RDONLY);
  ASSERT_GE(directory, 0);
  LineReader reader(directory);
  EXPECT_EQ(reader.Next(), std::nullopt);
  EXPECT_EQ(reader.error(), std::strerror(EISDIR));
  close(directory);
}

TEST_F(ClientLines, FeedDeliversEverythingBeforeItsEnd) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += std::to_string(i) + "\n";
  Write(text);
  CloseInput();
  LineFeed feed(fds_[0], [] {});
  std::vector<std::string> lines;
  while (!feed.ended()) {
    if (auto line = feed.TryNext()) lines.push_back(*line);
    std::this_thread::yield();
  }
  ASSERT_EQ(lines.size(), 100u);
  EXPECT_EQ(lines[99], "99");
}

TEST_F(ClientLines, FeedCanBeStoppedWhileItWaits) {
  LineFeed feed(fds_[0], [] {});
  EXPECT_FALSE(feed.ended());
  feed.Stop();
  while (!feed.ended()) std::this_thread::yield();
  EXPECT_EQ(feed.error(), "");
}

}  // namespace
}  // namespace tessera::client
