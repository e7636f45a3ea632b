// A program of the build as a child process. Threads: one.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace tessera {

class ChildProcess {
 public:
  // `words`: a binary of the build, or a path, and what its command line begins with. Both its
  // streams go to `output`, or to a file that goes with it.
  ChildProcess(std::vector<std::string> words, const std::vector<std::string>& flags,
               const std::string& output = "");
  ~ChildProcess();  // SIGKILL if it still runs
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  std::string output() const;  // so far
  void Signal(int number);
  bool ended();  // by itself
  // The exit status, 128 + the signal that killed it, or -1 if it has not ended after 20 s.
  int WaitForExit();

 private:
  pid_t pid_ = -1;
  int status_ = -1;
  std::string output_;
  bool owns_output_;
};

// What a command prints and how it ends.
struct RunResult {
  int status = -1;
  std::string output;
};
RunResult RunProgram(std::vector<std::string> words, const std::vector<std::string>& flags);

}  // namespace tessera
