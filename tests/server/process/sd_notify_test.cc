#include "server/process/sd_notify.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

using testing::HasSubstr;

// A service notify's end: a datagram socket at `name` (@ for the abstract namespace).
class Listener {
 public:
  explicit Listener(std::string name) : name_(std::move(name)) {
    fd_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name_.data(), name_.size());
    if (name_[0] == '@') address.sun_path[0] = '\0';
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name_.size());
    TESSERA_CHECK(bind(fd_, reinterpret_cast<sockaddr*>(&address), length) == 0);
  }
  ~Listener() {
    close(fd_);
    if (name_[0] == '/') unlink(name_.c_str());
  }
  std::string Next() {
    char buffer[256];
    const ssize_t got = recv(fd_, buffer, sizeof(buffer), MSG_DONTWAIT);
    return got < 0 ? "nothing" : std::string(buffer, got);
  }

 private:
  std::string name_;
  int fd_;
};

std::string UniqueName() { return absl::StrCat("tessera-notify-", getpid()); }

TEST(SdNotify, TellsByPathAndByAbstractName) {
  for (const std::string& name :
       {absl::StrCat(testing::TempDir(), UniqueName()), absl::StrCat("@", UniqueName())}) {
    Listener listener(name);
    const SdNotify notify(name);
    EXPECT_TRUE(notify.Send("READY=1\nSTATUS=serving").ok()) << name;
    EXPECT_EQ(listener.Next(), "READY=1\nSTATUS=serving");
    EXPECT_EQ(listener.Next(), "nothing");
  }
}

TEST(SdNotify, NobodyListens) {
  EXPECT_TRUE(SdNotify("").Send("READY=1").ok());
  const absl::Status gone = SdNotify("/nonexistent/socket").Send("READY=1");
  EXPECT_THAT(std::string(gone.message()), HasSubstr("/nonexistent/socket"));
  EXPECT_FALSE(SdNotify("vsock:2:1234").Send("READY=1").ok());
  EXPECT_FALSE(SdNotify("/" + std::string(200, 'x')).Send("READY=1").ok());
}

TEST(SdNotify, WatchdogIsOfThisProcess) {
  struct Case {
    const char *usec, *pid;
    absl::Duration interval;
  };
  const std::string self = absl::StrCat(getpid()), other = absl::StrCat(getpid() + 1);
  const absl::Duration never = absl::InfiniteDuration();
  const Case kCases[] = {{"3000000", "", absl::Milliseconds(1500)},
                         {"3000000", self.c_str(), absl::Milliseconds(1500)},
                         {"3000000", other.c_str(), never},
                         {"3000000", "me", never},
                         {"0", "", never},
                         {"-1", "", never},
                         {"soon", "", never},
                         {"", "", never}};
  for (const Case& c : kCases) {
    setenv("WATCHDOG_USEC", c.usec, 1);
    setenv("WATCHDOG_PID", c.pid, 1);
    EXPECT_EQ(SdNotify::FromEnvironment().watchdog_interval(), c.interval)
        << c.usec << " " << c.pid;
  }
  unsetenv("WATCHDOG_USEC");
  unsetenv("WATCHDOG_PID");
}

}  // namespace
}  // namespace tessera
