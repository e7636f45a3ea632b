// Formats numbers and tables for people. base/byte_size.h has FormatBytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace tessera::client {

std::string FormatSeconds(double seconds);  // "850 us", "41.2 ms", "3.25 s", "2 min 05 s"
std::string FormatCount(int64_t count);     // "11,300,000"

// A text table. The first column is left-aligned, the others are right-aligned. Columns are padded
// to their widest cell, counted in UTF-8 characters.
class Table {
 public:
  explicit Table(std::vector<std::string> header);
  void AddRow(std::vector<std::string> cells);  // REQUIRES: as many cells as the header
  // Returns the header, a rule and the rows. Each line ends with a newline.
  std::string Render() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace tessera::client
