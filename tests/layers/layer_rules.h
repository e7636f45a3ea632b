// Checks rules of the source tree that no compiler enforces: which folder may use which folder and
// library, what headers and .cu files may contain, and how long files may be. Reads #include lines
// and CMakeLists.txt files, so no build is needed.
//
// Threads: functions only, safe. Errors: an unreadable file is a finding.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace tessera::layers {

struct Findings {
  // Broken rules as "path:line: text", with paths relative to the root. Must be empty.
  std::vector<std::string> violations;
  // Files above the goal for sizes but below the limit, in the same form.
  std::vector<std::string> warnings;
};

// Checks every source and CMakeLists.txt of the code folders below `root`.
Findings CheckTree(const std::filesystem::path& root);

// Returns the sorted code folders below `root` that hold a source file. A test uses it to notice a
// check that found nothing because it saw no files.
std::vector<std::string> CheckedFolders(const std::filesystem::path& root);

}  // namespace tessera::layers
