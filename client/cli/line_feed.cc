#include "client/cli/line_feed.h"

#include <utility>

namespace tessera::client {

LineFeed::LineFeed(int fd, std::function<void()> on_news) : reader_(fd) {
  thread_ = std::thread([this, on_news = std::move(on_news)] {
    while (true) {
      std::optional<std::string> line = reader_.Next();
      {
        MutexLock lock(mutex_);
        if (line) {
          while (!stopped_ && lines_.size() >= kReadAhead) room_.Wait(mutex_);
          lines_.push_back(*std::move(line));
        }
        if (!line || stopped_) reading_ = false;
      }
      on_news();
      MutexLock lock(mutex_);
      if (!reading_) return;
    }
  });
}

LineFeed::~LineFeed() {
  Stop();
  thread_.join();
}

std::optional<std::string> LineFeed::TryNext() {
  MutexLock lock(mutex_);
  if (lines_.empty()) return std::nullopt;
  std::string line = std::move(lines_.front());
  lines_.pop_front();
  room_.NotifyAll();
  return line;
}

bool LineFeed::ended() {
  MutexLock lock(mutex_);
  return lines_.empty() && !reading_;
}

void LineFeed::Stop() {
  {
    MutexLock lock(mutex_);
    stopped_ = true;
    room_.NotifyAll();
  }
  reader_.Stop();
}

std::string LineFeed::error() {
  MutexLock lock(mutex_);
  return reading_ ? "" : reader_.error();
}

}  // namespace tessera::client
