// Says when any of some files has changed, for what is read again while the daemon runs.
//
// By stat(2), links followed, not by inotify: Kubernetes swaps a link above the files it mounts,
// editors rename, and a look at a few files now and then costs nothing. Threads: one.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace tessera {

class FileWatch {
 public:
  // Empty paths are left out. Remembers how the files look now.
  explicit FileWatch(const std::vector<std::string>& paths);

  // Whether a file looks different (also: is there no more) from what the last look saw. Read the
  // files after asking: a change during the reading is then seen by the next look.
  bool Changed();

 private:
  std::string Look() const;

  std::vector<std::string> paths_;
  std::string seen_;
};

}  // namespace tessera
