// The streams, terminal properties and interrupt key that a command uses. Commands get them as an
// argument, so that tests can run a command in-process without a terminal.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "client/cli/interrupt.h"

namespace tessera::client {

enum ExitCode { kExitOk = 0, kExitFailure = 1, kExitUsage = 2 };

using Args = std::vector<std::string>;

// Owns nothing; everything must outlive the command.
struct Io {
  int in_fd = 0;
  bool in_terminal = false;
  std::ostream* out = nullptr;  // results
  bool out_terminal = false;
  std::ostream* err = nullptr;  // errors, progress, usage lines
  bool err_terminal = false;
  int columns = 80;  // width of the terminal
  Interrupt* interrupt = nullptr;
};

}  // namespace tessera::client
