#include "server/process/sd_notify.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace tessera {
namespace {

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Returns infinity unless the variables mean this process.
absl::Duration WatchdogFromEnvironment() {
  int64_t microseconds = 0, pid = 0;
  if (!absl::SimpleAtoi(Environment("WATCHDOG_USEC"), &microseconds) || microseconds <= 0) {
    return absl::InfiniteDuration();
  }
  const std::string meant = Environment("WATCHDOG_PID");
  if (!meant.empty() && (!absl::SimpleAtoi(meant, &pid) || pid != getpid())) {
    return absl::InfiniteDuration();
  }
  return absl::Microseconds(microseconds);
}

}  // namespace

SdNotify SdNotify::FromEnvironment() {
  return SdNotify(Environment("NOTIFY_SOCKET"), WatchdogFromEnvironment());
}

SdNotify::SdNotify(std::string socket, absl::Duration watchdog)
    : socket_(std::move(socket)), watchdog_interval_(watchdog / 2) {}

absl::Status SdNotify::Send(absl::string_view lines) const {
  if (socket_.empty()) return absl::OkStatus();
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if ((socket_[0] != '/' && socket_[0] != '@') || socket_.size() >= sizeof(name.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("NOTIFY_SOCKET=", socket_, ": not understood"));
  }
  std::memcpy(name.sun_path, socket_.data(), socket_.size());
  if (socket_[0] == '@') name.sun_path[0] = '\0';
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  const bool sent = fd >= 0 && sendto(fd, lines.data(), lines.size(), MSG_NOSIGNAL,
                                      reinterpret_cast<const sockaddr*>(&name),
                                      length) == static_cast<ssize_t>(lines.size());
  const int error = errno;
  if (fd >= 0) close(fd);
  if (sent) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("NOTIFY_SOCKET=", socket_, ": ", strerror(error)));
}

}  // namespace tessera
