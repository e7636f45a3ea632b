// Numbers and tables for people.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace tessera::client {

std::string FormatBytes(int64_t bytes);     // "0 B", "1.5 KiB", "2.0 GiB"
std::string FormatSeconds(double seconds);  // "850 us", "41.2 ms", "3.25 s", "2 min 05 s"
std::string FormatCount(int64_t count);     // "11,300,000"

// Columns padded to their widest cell: the first column left-aligned, the others right-aligned.
// Width is counted in UTF-8 characters.
class Table {
 public:
  explicit Table(std::vector<std::string> header);
  void AddRow(std::vector<std::string> cells);  // REQUIRES: as many cells as the header
  // Each line ends with a newline; a rule follows the header.
  std::string Render() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace tessera::client
