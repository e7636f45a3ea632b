// Parses the header of a safetensors file into a checked list of tensors.
//
// Layout of a file: the header's length in 8 little-endian bytes; a JSON header; row-major data at
// any alignment. The header maps a name to dtype, shape and [begin, end), in bytes from the start
// of the data. It may hold `__metadata__`, an object of strings.
// Threads: safe; functions only.
// Errors, with `what` and the tensor: INVALID_ARGUMENT, and DATA_LOSS for a truncated file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

struct SafetensorsEntry {
  std::string name;
  std::string dtype;           // as in the file: "BF16", "I64", ...
  std::vector<int64_t> shape;  // the number of elements fits in int64
  int64_t begin = 0;           // in bytes from the start of the data
  int64_t end = 0;
};

struct SafetensorsHeader {
  int64_t data_offset = 0;                // of the start of the data, in bytes
  std::vector<SafetensorsEntry> tensors;  // ascending by begin
};

// `file` holds the whole file; `what` names it in errors. For an unknown dtype the byte range is
// checked, but not whether it fits the shape.
absl::StatusOr<SafetensorsHeader> ParseSafetensors(absl::string_view file, absl::string_view what);

}  // namespace tessera
