// Runs a program of the build as a child process. Threads: one.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace tessera {

class ChildProcess {
 public:
  // `words` are a binary of the build or a path, and the first arguments. Both output streams go to
  // the file `output`, or to a temporary file.
  ChildProcess(std::vector<std::string> words, const std::vector<std::string>& flags,
               const std::string& output = "");
  ~ChildProcess();  // kills the process if it still runs
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  std::string output() const;  // the output so far
  void Signal(int number);
  bool ended();  // whether it has ended by itself
  // Blocks for at most 20 s. Returns the exit status, 128 + the signal, or -1 if it still runs.
  int WaitForExit();

 private:
  pid_t pid_ = -1;
  int status_ = -1;
  std::string output_;
  bool owns_output_;
};

// The output and the exit status of a command.
struct RunResult {
  int status = -1;
  std::string output;
};
RunResult RunProgram(std::vector<std::string> words, const std::vector<std::string>& flags);

}  // namespace tessera
