#include "tests/support/paths.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace tessera {

std::string SourcePath(absl::string_view relative) {
  const char* moved = std::getenv("TESSERA_SOURCE_DIR");
  return absl::StrCat(moved != nullptr ? moved : TESSERA_SOURCE_DIR, "/", relative);
}

std::string BinaryPath(absl::string_view name) {
  return absl::StrCat(TESSERA_BINARY_DIR, "/", name);
}

}  // namespace tessera
