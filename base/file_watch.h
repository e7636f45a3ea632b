// Tells when one of several files has changed, so that the daemon can reload it while it runs.
//
// Uses stat(2) and follows links. inotify would not do: Kubernetes replaces a link above the
// mounted files, and editors rename files. Checking a few files now and then costs nothing.
// Threads: one.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace tessera {

class FileWatch {
 public:
  // Ignores empty paths. Remembers how the files look now.
  explicit FileWatch(const std::vector<std::string>& paths);

  // Returns whether a file looks different from the last call, or has appeared or disappeared. Read
  // the files after this call; the next call then notices a change during the reading.
  bool Changed();

 private:
  std::string Look() const;

  std::vector<std::string> paths_;
  std::string seen_;
};

}  // namespace tessera
