// The rules of the source tree that no compiler holds: which folder may use which, who may know
// which library, what a header and a .cu file may contain, how long a file may be. They are read
// off #include lines and CMakeLists.txt files, so a violation is found without building anything.
//
// Threads: stateless. Errors: an unreadable file is itself a finding.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace tessera::layers {

struct Findings {
  // Broken rules, "path:line: what" with the path relative to the root. Must be empty.
  std::vector<std::string> violations;
  // Sizes past the goal but not past the limit, in the same form.
  std::vector<std::string> warnings;
};

// Checks every source and CMakeLists.txt of the code folders below `root`.
Findings CheckTree(const std::filesystem::path& root);

// The code folders that exist below `root` and hold at least one source file, sorted: a check that
// finds nothing because it looked nowhere is told by this.
std::vector<std::string> CheckedFolders(const std::filesystem::path& root);

}  // namespace tessera::layers
