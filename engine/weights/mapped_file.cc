#include "engine/weights/mapped_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"

namespace tessera {

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const std::string why = absl::StrCat(path, ": ", strerror(errno));
    return errno == ENOENT ? absl::NotFoundError(why) : absl::InvalidArgumentError(why);
  }
  struct stat info;
  const bool regular = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  void* base = MAP_FAILED;
  if (regular && info.st_size > 0) {
    base = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
  }
  const int map_error = errno;
  close(fd);
  if (!regular) return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  if (info.st_size == 0) return absl::DataLossError(absl::StrCat(path, ": empty file"));
  if (base == MAP_FAILED) {
    return absl::InternalError(absl::StrCat(path, ": mmap: ", strerror(map_error)));
  }
  // Advice only: each tensor is read once, from front to back.
  (void)madvise(base, static_cast<size_t>(info.st_size), MADV_SEQUENTIAL);
  return std::unique_ptr<MappedFile>(
      new MappedFile(static_cast<char*>(base), static_cast<size_t>(info.st_size)));
}

MappedFile::~MappedFile() { munmap(base_, bytes_); }

}  // namespace tessera
