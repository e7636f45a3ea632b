// A file mapped read-only for as long as this lives.
//
// The file must not be truncated meanwhile. Threads: immutable, safe. Errors: NOT_FOUND,
// INVALID_ARGUMENT (no regular file), DATA_LOSS (empty); each names the path.
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
