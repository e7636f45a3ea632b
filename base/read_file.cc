#include "base/read_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace tessera {

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, int64_t max_bytes) {
  // A pipe in place of a file must not block the daemon.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  std::string text;
  ssize_t n = fd < 0 ? -1 : 0;
  char bytes[4096];
  while (fd >= 0 && (n = read(fd, bytes, sizeof(bytes))) > 0 &&
         static_cast<int64_t>(text.size()) <= max_bytes) {
    text.append(bytes, static_cast<size_t>(n));
  }
  const int error = errno;
  if (fd >= 0) close(fd);
  if (n < 0) {
    const std::string message = absl::StrCat(path, ": ", std::strerror(error));
    if (error == ENOENT) return absl::NotFoundError(message);
    if (error == EACCES) return absl::PermissionDeniedError(message);
    return absl::FailedPreconditionError(message);
  }
  if (static_cast<int64_t>(text.size()) > max_bytes) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": longer than ", max_bytes, " bytes"));
  }
  return text;
}

}  // namespace tessera
