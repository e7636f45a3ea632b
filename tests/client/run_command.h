// Runs a command of the client in this process, with strings as its streams.
#pragma once

#include <string>

#include "client/cli/io.h"

namespace tessera::client {

struct Outcome {
  int code = -1;
  std::string out, err;
};

// Runs the command. `interrupt` may be null. `terminal` makes all streams terminals.
Outcome RunCommand(const Args& args, const std::string& input = "", Interrupt* interrupt = nullptr,
                   bool terminal = false);

// Writes a file to a directory of the running test, and returns its path.
std::string WriteFile(const std::string& name, const std::string& content);
// Returns the content of a file.
std::string ReadAll(const std::string& path);

}  // namespace tessera::client
