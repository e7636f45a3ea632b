// A number of bytes as people write it: "512MiB", "2GiB", "1048576". Usable as a flag's type.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

struct ByteSize {
  int64_t bytes = 0;
};

// Digits, then nothing, "B", "KiB", "MiB", "GiB" or "TiB" (any case, a space is allowed between).
// INVALID_ARGUMENT for anything else, also for decimal units ("GB": meant or mistaken?) and
// overflow.
absl::StatusOr<int64_t> ParseByteSize(absl::string_view text);
// The largest binary unit that divides it: 536870912 -> "512MiB".
std::string FormatByteSize(int64_t bytes);

// Abseil finds these two by argument-dependent lookup.
bool AbslParseFlag(absl::string_view text, ByteSize* size, std::string* error);
std::string AbslUnparseFlag(ByteSize size);

}  // namespace tessera
