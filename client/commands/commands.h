// The commands of `tessera`, and the table that finds them by name.
//
// Each command takes the arguments after its name. It prints results on io.out and everything else
// on io.err, and returns an ExitCode.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "client/cli/io.h"

namespace tessera::client {

int RunChat(const Args& args, const Io& io);
int RunGenerate(const Args& args, const Io& io);
int RunEval(const Args& args, const Io& io);
int RunBench(const Args& args, const Io& io);
int RunInfo(const Args& args, const Io& io);
int RunHealth(const Args& args, const Io& io);
int RunTokenize(const Args& args, const Io& io);
int RunExplain(const Args& args, const Io& io);
int RunStress(const Args& args, const Io& io);

// Runs `--help`, `--version`, or a command with its arguments. `args` excludes the program's name.
int RunTessera(const Args& args, const Io& io);

}  // namespace tessera::client
