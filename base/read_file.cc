#include "base/read_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"

namespace tessera {
namespace {

constexpr size_t kGrowth = 4096;

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number() const { return number_; }

 private:
  const int number_;
};

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes) {
  // Opening a pipe without O_NONBLOCK would wait for a writer.
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info;
  if (file.number() < 0 || fstat(file.number(), &info) != 0) {
    return absl::ErrnoToStatus(errno, path);
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  }
  const auto too_large = [&](int64_t bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", bytes, " bytes, more than ", max_bytes));
  };
  if (info.st_size > max_bytes) return too_large(info.st_size);
  // The size is a hint: files of /proc say 0, and a file may grow while it is read.
  std::string content;
  size_t used = 0;
  while (true) {
    if (used == content.size()) {
      content.resize(std::max(used + kGrowth, static_cast<size_t>(info.st_size) + 1));
    }
    const ssize_t n = read(file.number(), content.data() + used, content.size() - used);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return absl::ErrnoToStatus(errno, path);
    if (n == 0) break;
    used += static_cast<size_t>(n);
    if (static_cast<int64_t>(used) > max_bytes) return too_large(static_cast<int64_t>(used));
  }
  content.resize(used);
  return content;
}

}  // namespace tessera
