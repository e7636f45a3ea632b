// What is only for terminals: colours, a progress bar, and keeping foreign text from steering them.
#pragma once

#include <chrono>
#include <cstdint>
#include <ostream>
#include <string>

#include "absl/strings/string_view.h"
#include "client/cli/io.h"

namespace tessera::client {

// Text in a colour, or unchanged when the stream is no terminal.
class Style {
 public:
  explicit Style(bool terminal) : on_(terminal) {}
  std::string Bold(absl::string_view text) const { return Wrap("1", text); }
  std::string Dim(absl::string_view text) const { return Wrap("2", text); }
  std::string Red(absl::string_view text) const { return Wrap("31", text); }
  std::string Green(absl::string_view text) const { return Wrap("32", text); }

 private:
  std::string Wrap(absl::string_view code, absl::string_view text) const;
  bool on_;
};

// Drops control characters other than newline and tab, C1 ones in UTF-8 included: an answer must
// not be able to send escape sequences to the terminal.
std::string Printable(absl::string_view text);

struct Progress {
  int64_t done = 0;
  int64_t total = 0;  // 0: not known yet
  int64_t failed = 0;
  double elapsed_seconds = 0;
};

// One line of at most `columns` characters, without newline or colour.
std::string RenderProgress(const Progress& progress, int columns);

// Redraws its line on io.err at most ten times a second; does nothing when that is no terminal.
class ProgressBar {
 public:
  explicit ProgressBar(const Io& io);
  ~ProgressBar();  // clears the line
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  void Update(int64_t done, int64_t total, int64_t failed);

 private:
  using Clock = std::chrono::steady_clock;
  const Io& io_;
  Clock::time_point start_, sampled_;
  bool shown_ = false;
};

}  // namespace tessera::client
