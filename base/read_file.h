// Reads a whole file into memory, up to a limit.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace tessera {

// Returns the content of a regular file; links are followed. Never blocks: a pipe or a device in
// the file's place is refused. Threads: safe.
//
// Errors name path and reason: NOT_FOUND, PERMISSION_DENIED, INVALID_ARGUMENT for anything that is
// not a regular file or holds more than `max_bytes`, or the code that belongs to another errno.
absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes);

}  // namespace tessera
