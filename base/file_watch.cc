#include "base/file_watch.h"

#include <sys/stat.h>

#include "absl/strings/str_cat.h"

namespace tessera {

FileWatch::FileWatch(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    if (!path.empty()) paths_.push_back(path);
  }
  seen_ = Look();
}

bool FileWatch::Changed() {
  std::string now = Look();
  if (now == seen_) return false;
  seen_ = std::move(now);
  return true;
}

std::string FileWatch::Look() const {
  std::string look;
  for (const std::string& path : paths_) {
    struct stat s {};
    if (stat(path.c_str(), &s) != 0) {
      look += "none;";
      continue;
    }
    // The time of the last status change moves even if a tool resets the time of the content.
    absl::StrAppend(&look, s.st_dev, ":", s.st_ino, ":", s.st_size, ":", s.st_mtim.tv_sec, ".",
                    s.st_mtim.tv_nsec, ":", s.st_ctim.tv_sec, ".", s.st_ctim.tv_nsec, ";");
  }
  return look;
}

}  // namespace tessera
