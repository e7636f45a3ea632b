// Reads lines from a file descriptor. Another thread can end the input while a read waits.
#pragma once

#include <optional>
#include <string>

namespace tessera::client {

// Threads: Next from one thread; Stop from any. The descriptor is not owned.
class LineReader {
 public:
  explicit LineReader(int fd);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  // Blocks for the next line and returns it without "\n" or "\r\n"; the last line may lack them.
  // Returns nullopt at the end of the input, after Stop, and after an error: a failed read or a
  // line above 256 MiB.
  std::optional<std::string> Next();
  void Stop();
  // Returns "" unless the input ended with an error.
  const std::string& error() const { return error_; }

 private:
  bool Fill();

  const int fd_;
  int stop_fd_;
  std::string buffer_;
  size_t scanned_ = 0;  // bytes of buffer_ known to hold no newline
  bool ended_ = false;
  std::string error_;
};

}  // namespace tessera::client
