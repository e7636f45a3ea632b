// Reads lines on a thread of its own, so that a slow input holds up neither retries nor answers.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "base/mutex.h"
#include "client/cli/line_reader.h"

namespace tessera::client {

// Threads: safe. At most a few lines are read ahead.
class LineFeed {
 public:
  // `on_news` is called on the reading thread after each line and at the end; it must not block.
  LineFeed(int fd, std::function<void()> on_news);
  ~LineFeed();
  LineFeed(const LineFeed&) = delete;
  LineFeed& operator=(const LineFeed&) = delete;

  // nullopt: no line at the moment, or none ever again if ended().
  std::optional<std::string> TryNext();
  // Every line was taken by TryNext and none will follow.
  bool ended();
  // Ends the input now; lines already read are still to be taken.
  void Stop();
  // After ended(): empty unless reading failed.
  std::string error();

 private:
  static constexpr size_t kReadAhead = 16;

  LineReader reader_;
  Mutex mutex_;
  CondVar room_;
  std::deque<std::string> lines_ TESSERA_GUARDED_BY(mutex_);
  bool reading_ TESSERA_GUARDED_BY(mutex_) = true;
  bool stopped_ TESSERA_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace tessera::client
