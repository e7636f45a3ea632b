// Locations of the repository and its binaries, for tests that read files or start programs.
//
// Threads: safe.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace tessera {

// Returns the path of `relative` inside the repository. The environment's TESSERA_SOURCE_DIR wins
// over the directory of the build, for a build carried to another machine.
std::string SourcePath(absl::string_view relative);

// Returns the path of a program or file in the build's bin folder.
std::string BinaryPath(absl::string_view name);

}  // namespace tessera
