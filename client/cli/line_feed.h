// Reads lines on a thread of its own, so that slow input delays neither retries nor answers.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "base/mutex.h"
#include "client/cli/line_reader.h"

namespace tessera::client {

// Reads at most a few lines ahead. Threads: safe.
class LineFeed {
 public:
  // Calls `on_news` on the reading thread after each line and at the end. It must not block. `fd`
  // is not owned.
  LineFeed(int fd, std::function<void()> on_news);
  ~LineFeed();
  LineFeed(const LineFeed&) = delete;
  LineFeed& operator=(const LineFeed&) = delete;

  // Returns the next line, or nullopt if there is none yet or the input has ended.
  std::optional<std::string> TryNext();
  // Returns whether TryNext has returned every line and no further line will follow.
  bool ended();
  // Ends the input now. TryNext still returns the lines that were read.
  void Stop();
  // Returns why reading failed, or "". REQUIRES: ended().
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
