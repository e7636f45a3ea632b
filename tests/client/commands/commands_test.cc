#include "client/commands/commands.h"

#include "absl/strings/str_cat.h"
#include "base/version.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/client/fake_server.h"
#include "tests/client/run_command.h"

namespace tessera::client {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr const char* kNames[] = {"chat", "generate", "eval",     "explain", "bench",
                                  "info", "health",   "tokenize", "stress"};

TEST(ClientCommands, HelpNamesEveryCommand) {
  const Outcome outcome = RunCommand({"--help"});
  EXPECT_EQ(outcome.code, 0);
  for (const char* name : kNames) {
    EXPECT_THAT(outcome.out, HasSubstr(std::string("\n  ") + name + " "));
  }
}

TEST(ClientCommands, EveryCommandHasHelpAndRefusesNonsense) {
  for (const char* name : kNames) {
    const Outcome help = RunCommand({name, "--help"});
    EXPECT_EQ(help.code, 0);
    EXPECT_THAT(help.out, StartsWith(std::string("usage: tessera ") + name));
    const Outcome unknown = RunCommand({name, "--nonsense"});
    EXPECT_EQ(unknown.code, 2);
    EXPECT_THAT(unknown.err, HasSubstr("unknown option --nonsense"));
    if (std::string(name) == "stress") continue;  // needs no server
    const Outcome address =
        RunCommand({name, "--address", "nowhere",
                    std::string(name) == "eval" ? "--questions=x" : "--timeout=1s"});
    EXPECT_EQ(address.code, 2);
    EXPECT_THAT(address.err, HasSubstr("\"nowhere\" is not HOST:PORT")) << name;
  }
}

TEST(ClientCommands, UsageErrors) {
  EXPECT_EQ(RunCommand({}).code, 2);
  EXPECT_EQ(RunCommand({"dance"}).code, 2);
  EXPECT_EQ(RunCommand({"--version"}).out, absl::StrCat("tessera ", Version(), "\n"));
}

TEST(ClientInfo, ShowsEverySection) {
  FakeServer server([](const v1::GenerateRequest&, int) { return Answer(""); });
  const Outcome outcome = RunCommand({"info", "--admin_address", server.address()});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  for (const char* text :
       {"9.8.7", "SERVING", "75.00 s", "--listen", "here:1", "11,300,000", "none, akvq",
        "1.0 MiB of 4.0 MiB (25.0%)", "10 of 40 (25.0%)", "raw16"}) {
    EXPECT_THAT(outcome.out, HasSubstr(text));
  }
}

TEST(ClientInfo, TheAddressHasTwoNames) {
  FakeServer server([](const v1::GenerateRequest&, int) { return Answer(""); });
  EXPECT_EQ(RunCommand({"info", "--address", server.address()}).code, 0);
  const Outcome both =
      RunCommand({"info", "--address", server.address(), "--admin_address", server.address()});
  EXPECT_EQ(both.code, 2);
  EXPECT_THAT(both.err, HasSubstr("--address and --admin_address are the same"));
}

TEST(ClientInfo, Json) {
  FakeServer server([](const v1::GenerateRequest&, int) { return Answer(""); });
  const Outcome outcome = RunCommand({"info", "--json", "--admin_address", server.address()});
  EXPECT_EQ(outcome.code, 0);
  const auto json = nlohmann::json::parse(outcome.out, nullptr, false);
  ASSERT_FALSE(json.is_discarded()) << outcome.out;
  EXPECT_EQ(json["server"]["version"], "9.8.7");
  EXPECT_EQ(json["model"]["parameters"], "11300000");  // 64-bit numbers are strings in proto JSON
  EXPECT_EQ(json["load"]["running"], 3);
  EXPECT_EQ(json["load"]["waiting"], 0);
  EXPECT_EQ(json["cache"]["formats"][0]["format"], "raw16");
}

TEST(ClientTokenize, PrintsIdsAndPieces) {
  FakeServer server([](const v1::GenerateRequest&, int) { return Answer(""); });
  EXPECT_EQ(RunCommand({"tokenize", "--text=ab", "--address", server.address()}).out,
            "     1  <s>\n    97  a\n    98  b\n");
  // Line ends of the input are part of the text.
  EXPECT_EQ(RunCommand({"tokenize", "--no_special_tokens", "--json", "--address", server.address()},
                       "a\r\n")
                .out,
            "{\"ids\":[97,13,10],\"pieces\":[\"a\",\"\\r\",\"\\n\"]}\n");
}

}  // namespace
}  // namespace tessera::client
