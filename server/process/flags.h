// tesserad's command line. The flags themselves are in flags.cc; a flag file (--flagfile=PATH) is
// the configuration file, and --tryfromenv=a,b takes FLAGS_a, FLAGS_b from the environment.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "server/process/config.h"

namespace tessera {

// Parses and validates. A malformed flag, --help and --version end the process (Abseil's
// behaviour: a message, exit code 1, 1 and 0); a bad value, or a word that is no flag, is
// INVALID_ARGUMENT.
absl::StatusOr<ServerConfig> ParseFlags(int argc, char** argv);

// The embedded demo model near the program: beside it, in ../share/tessera, or in the source tree
// it was built from. "" if there is none.
std::string FindDemoModel(const std::string& program_path);

}  // namespace tessera
