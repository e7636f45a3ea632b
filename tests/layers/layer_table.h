// The layers of the source tree: its folders, their sub-folders, and which of them may use which
// library. layer_rules.h enforces them. Threads: safe.
#pragma once

#include <vector>

#include "absl/strings/string_view.h"

namespace tessera::layers {

// A top-level folder. It may include itself and the folders in `may_use`. "tessera" is the code
// that is generated from proto/.
struct Folder {
  absl::string_view name;
  std::vector<absl::string_view> may_use;
  // Every sub-folder with sources, lowest layer first; "" is the folder itself. A sub-folder may
  // include only itself and those before it. If empty, sub-folders are not checked.
  std::vector<absl::string_view> rooms;
};

const std::vector<Folder>& Folders();

// A library that only some folders may use, named by the prefix of an include path or CMake target.
struct Confined {
  absl::string_view prefix;
  std::vector<absl::string_view> folders;
};

const std::vector<Confined>& ConfinedIncludes();
const std::vector<Confined>& ConfinedTargets();

// Sources that may be longer than the limit, because each is one table.
const std::vector<absl::string_view>& LongTables();

}  // namespace tessera::layers
