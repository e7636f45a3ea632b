// tessera_bench <command> [--flag=value ...]: speeds compared with measured rooflines.
#include <cstdio>
#include <string>
#include <vector>

#include "tests/bench/bench.h"

namespace tessera::bench {

Command GemmCommand();        // gemm.cc
Command AttentionCommand();   // attention.cc
Command FirstTokenCommand();  // first_token.cc
Command DecodeCommand();      // decode.cc
Command PlanCommand();        // plan.cc
Command StepCommand();        // step.cc
Command PrefillCommand();     // prefill.cc
Command VisionCommand();      // prefill.cc
Command ServeCommand();       // serve.cc
Command CommitCommand();      // commit.cc

namespace {

using MakeCommand = Command (*)();
constexpr MakeCommand kCommands[] = {
    GemmCommand, AttentionCommand, FirstTokenCommand, DecodeCommand, PlanCommand,
    StepCommand, PrefillCommand,   VisionCommand,     ServeCommand,  CommitCommand};

std::vector<Flag> AllFlags(const Command& command) {
  std::vector<Flag> flags = command.flags;
  for (const Flag& f : TimingFlags()) flags.push_back(f);
  flags.push_back({"json", "0", "1: JSON lines instead of a table"});
  return flags;
}

int Usage(FILE* to) {
  std::fprintf(to, "usage: tessera_bench <command> [--flag=value ...]\n");
  for (MakeCommand make : kCommands) {
    const Command command = make();
    std::fprintf(to, "\n%s: %s\n", command.name, command.help);
    for (const Flag& f : AllFlags(command)) {
      std::fprintf(to, "  --%s=%s  %s\n", f.name, f.value, f.help);
    }
  }
  return to == stdout ? 0 : 2;
}

int Main(const std::vector<std::string>& arguments) {
  if (arguments.empty()) return Usage(stderr);
  if (arguments[0] == "--help" || arguments[0] == "help") return Usage(stdout);
  for (MakeCommand make : kCommands) {
    const Command command = make();
    if (arguments[0] != command.name) continue;
    const auto flags = Flags::Parse(AllFlags(command), {arguments.begin() + 1, arguments.end()});
    Report report;
    const absl::Status status = flags.ok() ? command.run(*flags, report) : flags.status();
    if (!status.ok()) {
      std::fprintf(stderr, "%s: %s\n", command.name, std::string(status.message()).c_str());
      return 1;
    }
    report.Print(flags->Text("json") != "0");
    return 0;
  }
  std::fprintf(stderr, "unknown command \"%s\"\n", arguments[0].c_str());
  return Usage(stderr);
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  return tessera::bench::Main(std::vector<std::string>(argv + 1, argv + argc));
}
