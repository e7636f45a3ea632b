// UTF-8, one character at a time.
//
// Threads: functions only, safe.
#pragma once

#include "absl/strings/string_view.h"

namespace tessera {

constexpr char kReplacementCharacter[] = "\xEF\xBF\xBD";  // U+FFFD

// Bytes of the character that `text` starts with: 1..4; 0 if its first byte cannot start one
// (overlong forms, surrogates and values above U+10FFFF included); -1 if `text` ends inside a
// character that may still become valid. REQUIRES: text not empty.
int Utf8Length(absl::string_view text);

bool IsValidUtf8(absl::string_view text);

}  // namespace tessera
