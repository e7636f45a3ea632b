// The safetensors container: its header, checked, as a list of tensors.
//
// Layout: 8-byte little-endian header length, JSON header (name -> dtype, shape, [begin, end)
// relative to the data's start; optional `__metadata__` of strings), raw row-major data at any
// alignment. Threads: functions only, safe. Errors: INVALID_ARGUMENT naming `what` and the tensor.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

struct SafetensorsEntry {
  std::string name;
  std::string dtype;           // as written: "BF16", "I64", ...
  std::vector<int64_t> shape;  // products fit in int64
  int64_t begin = 0;           // bytes from the data's start
  int64_t end = 0;
};

struct SafetensorsHeader {
  int64_t data_offset = 0;                // of the data's start, from the file's first byte
  std::vector<SafetensorsEntry> tensors;  // ascending by begin
};

// `file` is the whole file. Sizes of unknown dtypes cannot be checked; their ranges are.
absl::StatusOr<SafetensorsHeader> ParseSafetensors(absl::string_view file, absl::string_view what);

}  // namespace tessera
