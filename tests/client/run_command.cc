#include "tests/client/run_command.h"

#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/base.h"
#include "client/commands/commands.h"
#include "gtest/gtest.h"

namespace tessera::client {

Outcome RunCommand(const Args& args, const std::string& input, Interrupt* interrupt,
                   bool terminal) {
  std::FILE* file = std::tmpfile();
  TESSERA_CHECK(file != nullptr);
  TESSERA_CHECK(std::fwrite(input.data(), 1, input.size(), file) == input.size());
  std::rewind(file);
  std::ostringstream out, err;
  Interrupt unused;
  Io io;
  io.in_fd = fileno(file);
  io.out = &out;
  io.err = &err;
  io.in_terminal = io.out_terminal = io.err_terminal = terminal;
  io.interrupt = interrupt != nullptr ? interrupt : &unused;
  Outcome outcome;
  outcome.code = RunTessera(args, io);
  std::fclose(file);
  outcome.out = out.str();
  outcome.err = err.str();
  return outcome;
}

std::string WriteFile(const std::string& name, const std::string& content) {
  const auto* test = testing::UnitTest::GetInstance()->current_test_info();
  const std::filesystem::path path = std::filesystem::path(testing::TempDir()) /
                                     ("tessera_client_" + std::to_string(getpid())) /
                                     test->test_suite_name() / test->name() / name;
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << content;
  return path.string();
}

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

}  // namespace tessera::client
