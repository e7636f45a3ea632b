// Numbers of bytes as text: "512MiB" for settings, "1.5 MiB" for reports. ByteSize can be the type
// of a flag. Threads: functions only, safe.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

struct ByteSize {
  int64_t bytes = 0;
};

// Parses digits and an optional unit: "B", "KiB", "MiB", "GiB" or "TiB" in any case, after an
// optional space. INVALID_ARGUMENT for other text and for overflow. Decimal units such as "GB" are
// refused, because people often mean GiB.
absl::StatusOr<int64_t> ParseByteSize(absl::string_view text);
// Returns the exact number in the largest unit that divides it: 536870912 -> "512MiB".
// ParseByteSize reads it back.
std::string FormatByteSize(int64_t bytes);
// Returns the number rounded to one decimal for people: "0 B", "1.5 KiB", "2.0 GiB".
std::string FormatBytes(int64_t bytes);

// Abseil finds these two by argument-dependent lookup.
bool AbslParseFlag(absl::string_view text, ByteSize* size, std::string* error);
std::string AbslUnparseFlag(ByteSize size);

}  // namespace tessera
