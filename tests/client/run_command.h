// Runs a client command in this process with strings for streams.
#pragma once

#include <string>

#include "client/cli/io.h"

namespace tessera::client {

struct Outcome {
  int code = -1;
  std::string out, err;
};

// `interrupt` may be null; terminals are off unless `terminal`.
Outcome RunCommand(const Args& args, const std::string& input = "", Interrupt* interrupt = nullptr,
                   bool terminal = false);

// A file of this content in a directory of the running test; returns its path.
std::string WriteFile(const std::string& name, const std::string& content);
std::string ReadAll(const std::string& path);

}  // namespace tessera::client
