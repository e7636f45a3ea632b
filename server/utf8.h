// UTF-8 checks for bytes that leave the daemon: protobuf strings and JSON must be valid.
#pragma once

#include <cstddef>

#include "absl/strings/string_view.h"

namespace tessera {

// Bytes of the well-formed UTF-8 character at the start of `text`; 0 if there is none (Unicode
// 15, table 3-7: no overlong forms, no surrogates, nothing above U+10FFFF).
size_t Utf8CharacterLength(absl::string_view text);
bool IsUtf8(absl::string_view text);

}  // namespace tessera
