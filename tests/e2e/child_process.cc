#include "tests/e2e/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/base.h"
#include "base/clock.h"
#include "gtest/gtest.h"
#include "tests/support/paths.h"

extern char** environ;

namespace tessera {
namespace {

std::string TempPath() {
  static std::atomic<int> count{0};
  return absl::StrCat(testing::TempDir(), "tesserad.", getpid(), ".", ++count);
}

}  // namespace

ChildProcess::ChildProcess(std::vector<std::string> words, const std::vector<std::string>& flags,
                           const std::string& output)
    : output_(output.empty() ? TempPath() : output), owns_output_(output.empty()) {
  if (words[0][0] != '/') words[0] = BinaryPath(words[0]);
  words.insert(words.end(), flags.begin(), flags.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, output_.c_str(),
                                   O_CREAT | O_TRUNC | O_WRONLY, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
  const int error = posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  TESSERA_CHECK(error == 0);
}

ChildProcess::~ChildProcess() {
  if (!ended()) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  if (owns_output_) unlink(output_.c_str());
}

std::string ChildProcess::output() const {
  std::ifstream in(output_, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

void ChildProcess::Signal(int number) { TESSERA_CHECK(kill(pid_, number) == 0); }

bool ChildProcess::ended() {
  int status = 0;
  if (status_ < 0 && waitpid(pid_, &status, WNOHANG) != 0) {
    status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  return status_ >= 0;
}

int ChildProcess::WaitForExit() {
  const absl::Time deadline = SteadyNow() + absl::Seconds(20);
  while (!ended() && SteadyNow() < deadline) absl::SleepFor(absl::Milliseconds(2));
  return status_;
}

RunResult RunProgram(std::vector<std::string> words, const std::vector<std::string>& flags) {
  ChildProcess child(std::move(words), flags);
  RunResult result;
  result.status = child.WaitForExit();
  result.output = child.output();
  return result;
}

}  // namespace tessera
