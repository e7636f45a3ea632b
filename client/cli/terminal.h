// Terminal output: colours, a progress bar, and a filter for escape sequences in foreign text.
#pragma once

#include <chrono>
#include <cstdint>
#include <ostream>
#include <string>

#include "absl/strings/string_view.h"
#include "client/cli/io.h"

namespace tessera::client {

// Colours text, or returns it unchanged if the stream is not a terminal.
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

// Drops control characters except newline and tab, so that an answer cannot send escape sequences
// to the terminal. That includes C1 characters in UTF-8.
std::string Printable(absl::string_view text);

struct Progress {
  int64_t done = 0;
  int64_t total = 0;  // 0 if not known yet
  int64_t failed = 0;
  double elapsed_seconds = 0;
};

// Returns one line of at most `columns` characters, without newline or colour.
std::string RenderProgress(const Progress& progress, int columns);

// Redraws its line on io.err at most ten times a second. Does nothing if io.err is not a terminal.
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
