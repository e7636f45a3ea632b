// Lines of a file descriptor, with an end that another thread can bring about while a read waits.
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

  // The next line without its end ("\n" or "\r\n"); the last one may lack it. nullopt at the end of
  // the input, after Stop, and after a read error or a line above 256 MiB: error() says which.
  std::optional<std::string> Next();
  void Stop();
  // Empty if the input ended by itself or by Stop.
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
