// The command line of tesserad. flags.cc defines the flags.
//
// A flag file (--flagfile=PATH) is the configuration file, and --tryfromenv=a,b takes FLAGS_a and
// FLAGS_b from the environment.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "server/process/config.h"

namespace tessera {

// Parses and validates the command line. A malformed flag, --help and --version end the process,
// as Abseil does: with a message and exit code 1, 1 and 0. A bad value, or a word that is no flag,
// gives INVALID_ARGUMENT.
absl::StatusOr<ServerConfig> ParseFlags(int argc, char** argv);

// Returns the path of the demo model: in the program's folder, in ../share/tessera, or in the
// source tree that it was built from. Returns "" if there is none.
std::string FindDemoModel(const std::string& program_path);

}  // namespace tessera
