#include "server/net/address.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

TEST(AddressTest, Parses) {
  const auto v4 = ParseAddress("127.0.0.1:8600");
  ASSERT_TRUE(v4.ok());
  EXPECT_EQ(v4->host, "127.0.0.1");
  EXPECT_EQ(v4->port, 8600);
  const auto v6 = ParseAddress("[::1]:0");
  ASSERT_TRUE(v6.ok());
  EXPECT_EQ(v6->host, "::1");
  const auto path = ParseAddress("unix:/run/t.sock");
  ASSERT_TRUE(path.ok());
  EXPECT_EQ(path->unix_path, "/run/t.sock");
}

TEST(AddressTest, Refuses) {
  for (const std::string& text :
       {std::string(""), std::string("8600"), std::string(":8600"), std::string("host:"),
        std::string("host:x"), std::string("host:65536"), std::string("host:-1"),
        std::string("::1:80"), std::string("unix:"), "unix:/" + std::string(200, 'a')}) {
    EXPECT_FALSE(ParseAddress(text).ok()) << text;
  }
}

TEST(AddressTest, KnowsWhatOthersCanReach) {
  for (const char* text : {"127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1", "unix:x"}) {
    EXPECT_TRUE(ParseAddress(text)->loopback()) << text;
  }
  for (const char* text :
       {"0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1", "127.0.0.1.example.org:1"}) {
    EXPECT_FALSE(ParseAddress(text)->loopback()) << text;
  }
}

TEST(AddressTest, FindsTakenPort) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(name);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&name), size), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size), 0);
  const auto address = ParseAddress(absl::StrCat("127.0.0.1:", ntohs(name.sin_port)));
  ASSERT_TRUE(address.ok());
  EXPECT_EQ(CheckAddressFree(*address).code(), absl::StatusCode::kAlreadyExists);
  close(fd);
  EXPECT_TRUE(CheckAddressFree(*address).ok());
}

TEST(AddressTest, FindsTakenUnixSocketAndIgnoresStaleOne) {
  const std::string path = absl::StrCat(testing::TempDir(), "taken.", getpid());
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  path.copy(name.sun_path, sizeof(name.sun_path) - 1);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  const auto address = ParseAddress("unix:" + path);
  EXPECT_EQ(CheckAddressFree(*address).code(), absl::StatusCode::kAlreadyExists);
  close(fd);  // the file stays, but no process listens
  EXPECT_TRUE(CheckAddressFree(*address).ok());
  unlink(path.c_str());
}

TEST(AddressTest, SaysWhatCannotBeBound) {
  const absl::Status status = CheckAddressFree(*ParseAddress("192.0.2.1:1"));  // not ours
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("192.0.2.1:1"), absl::string_view::npos);
}

}  // namespace
}  // namespace tessera
