#include "client/cli/terminal.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/format.h"

namespace tessera::client {

std::string Style::Wrap(absl::string_view code, absl::string_view text) const {
  if (!on_) return std::string(text);
  return absl::StrCat("\033[", code, "m", text, "\033[0m");
}

std::string Printable(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const unsigned char c = text[i];
    if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7F) continue;
    // U+0080..U+009F in UTF-8: some terminals take U+009B as the start of an escape sequence.
    if (c == 0xC2 && i + 1 < text.size()) {
      const unsigned char next = text[i + 1];
      if (next >= 0x80 && next <= 0x9F) {
        ++i;
        continue;
      }
    }
    out += static_cast<char>(c);
  }
  return out;
}

std::string RenderProgress(const Progress& progress, int columns) {
  const double rate = progress.elapsed_seconds > 0 ? progress.done / progress.elapsed_seconds : 0.0;
  std::string right = absl::StrCat(FormatCount(progress.done));
  if (progress.total > 0) absl::StrAppend(&right, "/", FormatCount(progress.total));
  absl::StrAppendFormat(&right, "  %.1f/s", rate);
  if (progress.failed > 0) absl::StrAppend(&right, "  ", progress.failed, " failed");
  if (progress.total > progress.done && rate > 0) {
    absl::StrAppend(&right, "  ", FormatSeconds((progress.total - progress.done) / rate), " left");
  }
  const int bar = std::min(40, columns - static_cast<int>(right.size()) - 4);
  if (progress.total <= 0 || bar < 5) return right.substr(0, std::max(0, columns));
  const double share = std::min(1.0, static_cast<double>(progress.done) / progress.total);
  const int filled = static_cast<int>(share * bar);
  return absl::StrCat("[", std::string(filled, '='), std::string(bar - filled, ' '), "] ", right);
}

ProgressBar::ProgressBar(const Io& io) : io_(io), start_(Clock::now()), sampled_(start_) {}

ProgressBar::~ProgressBar() {
  if (shown_) *io_.err << "\r\033[K" << std::flush;
}

void ProgressBar::Update(int64_t done, int64_t total, int64_t failed) {
  if (!io_.err_terminal) return;
  const auto now = Clock::now();
  if (now - sampled_ < std::chrono::milliseconds(100)) return;
  sampled_ = now;
  shown_ = true;
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  *io_.err << "\r" << RenderProgress({done, total, failed, elapsed}, io_.columns - 1) << "\033[K"
           << std::flush;
}

}  // namespace tessera::client
