#include "client/commands/commands.h"

#include <vector>

#include "absl/strings/str_format.h"
#include "base/version.h"

namespace tessera::client {
namespace {

struct Command {
  const char* name;
  const char* summary;
  int (*run)(const Args& args, const Io& io);
};

constexpr Command kCommands[] = {
    {"chat", "ask about images, once or in a conversation; answers stream", RunChat},
    {"generate", "answer a file of JSON lines, many at a time", RunGenerate},
    {"eval", "measure accuracy on a file of questions with known answers", RunEval},
    {"explain", "draw what a KV policy did to one request", RunExplain},
    {"bench", "measure latency, throughput and goodput under load", RunBench},
    {"info", "show a server's state, model, load and cache", RunInfo},
    {"health", "ask whether a server accepts requests, or wait until it does", RunHealth},
    {"tokenize", "show the token ids and pieces of a text", RunTokenize},
    {"stress", "write a checkpoint that is harder to compress; needs no server", RunStress},
};

std::string Help() {
  std::string out =
      "tessera: the command-line client of tesserad\n\n"
      "usage: tessera <command> --address HOST:PORT [options]\n"
      "       tessera <command> --help\n\ncommands:\n";
  for (const Command& command : kCommands) {
    absl::StrAppendFormat(&out, "  %-10s %s\n", command.name, command.summary);
  }
  out += "\nExit status: 0 success, 1 failure, 2 wrong command line.\n";
  return out;
}

}  // namespace

int RunTessera(const Args& args, const Io& io) {
  if (args.empty()) {
    *io.err << Help();
    return kExitUsage;
  }
  if (args[0] == "--help" || args[0] == "-h" || args[0] == "help") {
    *io.out << Help();
    return kExitOk;
  }
  if (args[0] == "--version") {
    *io.out << "tessera " << Version() << "\n";
    return kExitOk;
  }
  for (const Command& command : kCommands) {
    if (args[0] != command.name) continue;
    const int code = command.run(Args(args.begin() + 1, args.end()), io);
    // A full disk or a closed pipe must be reported as a failure.
    io.out->flush();
    if (io.out->good()) return code;
    *io.err << "tessera " << command.name << ": the output could not be written\n";
    return kExitFailure;
  }
  *io.err << "tessera: unknown command \"" << args[0] << "\"\nSee `tessera --help`.\n";
  return kExitUsage;
}

}  // namespace tessera::client
