// The map of the source tree: folders, the rooms inside them, and who may know which library.
//
// layer_rules.h holds the tree to it. Threads: safe.
#pragma once

#include <vector>

#include "absl/strings/string_view.h"

namespace tessera::layers {

// A top-level folder. It may include itself and the folders in `may_use`; "tessera" is the code
// that proto/ generates.
struct Folder {
  absl::string_view name;
  std::vector<absl::string_view> may_use;
  // Every sub-folder with sources, lowest first; "" is the folder itself. A room may include only
  // itself and rooms before it. Empty: the folder has no rooms, and sub-folders are free.
  std::vector<absl::string_view> rooms;
};

const std::vector<Folder>& Folders();

// A library that only some folders may use, by the start of an include path or of a CMake target.
struct Confined {
  absl::string_view prefix;
  std::vector<absl::string_view> folders;
};

const std::vector<Confined>& ConfinedIncludes();
const std::vector<Confined>& ConfinedTargets();

}  // namespace tessera::layers
