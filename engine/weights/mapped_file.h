// Maps a file into memory, read-only, until the object is destroyed.
//
// The file must not be truncated in that time. Threads: safe; immutable. Errors, each with the
// path: NOT_FOUND, INVALID_ARGUMENT (not a regular file, or not readable), DATA_LOSS (empty),
// INTERNAL (mmap failed).
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

class MappedFile {
 public:
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  absl::string_view content() const { return {base_, bytes_}; }

 private:
  MappedFile(char* base, size_t bytes) : base_(base), bytes_(bytes) {}
  char* base_;
  size_t bytes_;
};

}  // namespace tessera
