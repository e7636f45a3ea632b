// A small file as a string, for configuration that the daemon reads.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace tessera {

// NOT_FOUND, PERMISSION_DENIED or FAILED_PRECONDITION (also: longer than `max_bytes`), naming path
// and reason.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, int64_t max_bytes);

}  // namespace tessera
