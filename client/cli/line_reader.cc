#include "client/cli/line_reader.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/base.h"

namespace tessera::client {
namespace {
constexpr size_t kMaxLineBytes = 256 << 20;
constexpr size_t kReadBytes = 64 << 10;
}  // namespace

LineReader::LineReader(int fd) : fd_(fd), stop_fd_(eventfd(0, EFD_CLOEXEC)) {
  TESSERA_CHECK(stop_fd_ >= 0);
}

LineReader::~LineReader() { close(stop_fd_); }

std::optional<std::string> LineReader::Next() {
  while (true) {
    const size_t newline = buffer_.find('\n', scanned_);
    if (newline != std::string::npos) {
      std::string line = buffer_.substr(0, newline);
      buffer_.erase(0, newline + 1);
      scanned_ = 0;
      if (!line.empty() && line.back() == '\r') line.pop_back();
      return line;
    }
    scanned_ = buffer_.size();
    if (scanned_ > kMaxLineBytes) {
      error_ = "a line is longer than 256 MiB";
      ended_ = true;
      buffer_.clear();
    }
    if (!ended_ && Fill()) continue;
    ended_ = true;
    scanned_ = 0;
    if (buffer_.empty() || !error_.empty()) return std::nullopt;
    return std::exchange(buffer_, std::string());
  }
}

bool LineReader::Fill() {
  while (true) {
    pollfd fds[2] = {{fd_, POLLIN, 0}, {stop_fd_, POLLIN, 0}};
    if (poll(fds, 2, -1) < 0) {
      if (errno == EINTR) continue;
      error_ = std::strerror(errno);
      return false;
    }
    if (fds[1].revents != 0) {
      buffer_.clear();  // drops an unfinished line
      return false;
    }
    const size_t held = buffer_.size();
    buffer_.resize(held + kReadBytes);
    const ssize_t got = read(fd_, buffer_.data() + held, kReadBytes);
    buffer_.resize(held + (got > 0 ? got : 0));
    if (got > 0) return true;
    if (got == 0) return false;
    if (errno == EINTR || errno == EAGAIN) continue;
    error_ = std::strerror(errno);
    return false;
  }
}

void LineReader::Stop() {
  const uint64_t one = 1;
  TESSERA_CHECK(write(stop_fd_, &one, sizeof(one)) == sizeof(one));
}

}  // namespace tessera::client
