#include "client/cli/format.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/base.h"

namespace tessera::client {
namespace {

// Counts characters: continuation bytes of UTF-8 do not count.
size_t Width(absl::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

}  // namespace

std::string FormatSeconds(double seconds) {
  if (seconds < 0.9995e-3) return absl::StrFormat("%.0f us", seconds * 1e6);
  if (seconds < 0.09995) return absl::StrFormat("%.2f ms", seconds * 1e3);
  if (seconds < 0.9995) return absl::StrFormat("%.0f ms", seconds * 1e3);
  if (seconds < 119.5) return absl::StrFormat("%.2f s", seconds);
  const int64_t whole = std::llround(seconds);
  if (whole < 7200) return absl::StrFormat("%d min %02d s", whole / 60, whole % 60);
  const int64_t minutes = whole / 60;
  if (minutes < 48 * 60) return absl::StrFormat("%d h %02d min", minutes / 60, minutes % 60);
  return absl::StrFormat("%d d %02d h", minutes / 1440, minutes / 60 % 24);
}

std::string FormatCount(int64_t count) {
  std::string digits = absl::StrCat(count);
  const int first = count < 0 ? 1 : 0;
  for (int at = static_cast<int>(digits.size()) - 3; at > first; at -= 3) digits.insert(at, 1, ',');
  return digits;
}

Table::Table(std::vector<std::string> header) { rows_.push_back(std::move(header)); }

void Table::AddRow(std::vector<std::string> cells) {
  TESSERA_CHECK(cells.size() == rows_[0].size());
  rows_.push_back(std::move(cells));
}

std::string Table::Render() const {
  std::vector<size_t> widths(rows_[0].size(), 0);
  size_t total = 0;
  for (size_t c = 0; c < widths.size(); ++c) {
    for (const auto& row : rows_) widths[c] = std::max(widths[c], Width(row[c]));
    total += widths[c] + (c > 0 ? 2 : 0);
  }
  std::string out;
  for (size_t r = 0; r < rows_.size(); ++r) {
    for (size_t c = 0; c < widths.size(); ++c) {
      const std::string padding(widths[c] - Width(rows_[r][c]), ' ');
      if (c == 0) {
        absl::StrAppend(&out, rows_[r][c], widths.size() > 1 ? padding : "");
      } else {
        absl::StrAppend(&out, "  ", padding, rows_[r][c]);
      }
    }
    out += '\n';
    if (r == 0) absl::StrAppend(&out, std::string(total, '-'), "\n");
  }
  return out;
}

}  // namespace tessera::client
