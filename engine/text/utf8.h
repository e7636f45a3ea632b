// Reads UTF-8 one character at a time.
//
// Threads: safe; functions only.
#pragma once

#include "absl/strings/string_view.h"

namespace tessera {

constexpr char kReplacementCharacter[] = "\xEF\xBF\xBD";  // U+FFFD

// Returns the number of bytes of the first character of `text`, 1 to 4. Returns 0 if the first byte
// starts no valid character; overlong forms, surrogates and values above U+10FFFF are invalid.
// Returns -1 if `text` ends inside a character that may still become valid.
// REQUIRES: text is not empty.
int Utf8Length(absl::string_view text);

bool IsValidUtf8(absl::string_view text);

}  // namespace tessera
