// The log cannot be written. The daemon still serves, and reports the failure where it can.
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "tests/e2e/child_server.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

using testing::HasSubstr;

Answer Ask(const std::string& address) {
  const auto stub =
      v1::Inference::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  v1::GenerateRequest request = TextRequest("Hello");
  request.mutable_stopping()->set_max_tokens(3);
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  return Generate(*stub, request, &context);
}

// Without a log the test cannot read the address, so the daemon listens at a path.
struct Quiet {
  Quiet() : path(absl::StrCat(testing::TempDir(), "fault_log.", getpid())) {}
  ~Quiet() { unlink(path.c_str()); }
  std::vector<std::string> Flags(const std::string& log) const {
    return {"--listen=unix:" + path, "--admin_listen=off",     "--http_listen=off",
            "--metrics_listen=off",  "--kv_cache_bytes=16MiB", "--log_file=" + log};
  }
  std::string path;
};

TEST(FaultLogTest, AFullDiskFromTheStart) {
  const Quiet quiet;
  ChildProcess server({"tesserad"}, quiet.Flags("/dev/full"));
  EXPECT_TRUE(Eventually([&] { return Ask("unix:" + quiet.path).status.ok(); }));
  server.Signal(SIGTERM);
  EXPECT_EQ(server.WaitForExit(), 0);
  EXPECT_THAT(server.output(), HasSubstr("LOG ERROR"));
  EXPECT_THAT(server.output(), HasSubstr("No space left on device"));
}

// Standard error itself fails, so there is no place to report it.
TEST(FaultLogTest, AFullDiskBehindStandardError) {
  const Quiet quiet;
  ChildProcess server({"tesserad"}, quiet.Flags(""), "/dev/full");
  EXPECT_TRUE(Eventually([&] { return Ask("unix:" + quiet.path).status.ok(); }));
  server.Signal(SIGTERM);
  EXPECT_EQ(server.WaitForExit(), 0);
}

// A limit on the file's size simulates a disk that fills up and is emptied again.
TEST(FaultLogTest, ADiskThatFillsUpAndIsEmptied) {
  const Quiet quiet;
  const std::string log = absl::StrCat(testing::TempDir(), "fault_log.", getpid(), ".log");
  // Longer than the output on standard error, because the limit also applies to that.
  constexpr int kBefore = 1 << 20;
  std::ofstream(log) << std::string(kBefore - 1, '-') << '\n';
  ChildProcess server({"tesserad"}, quiet.Flags(log));
  ASSERT_TRUE(Eventually([&] { return Ask("unix:" + quiet.path).status.ok(); }));
  const auto lines = [&] {
    std::ifstream in(log);
    int n = 0;
    for (std::string line; std::getline(in, line);) {
      n += absl::StrContains(line, R"("code":"OK")") ? 1 : 0;
    }
    return n;
  };
  ASSERT_TRUE(Eventually([&] { return lines() == 1; }));
  rlimit before;
  const rlimit full = {kBefore, RLIM_INFINITY};
  ASSERT_EQ(prlimit(server.pid(), RLIMIT_FSIZE, &full, &before), 0);
  EXPECT_TRUE(Ask("unix:" + quiet.path).status.ok());
  EXPECT_TRUE(Eventually([&] { return absl::StrContains(server.output(), "LOG ERROR"); }));
  EXPECT_EQ(lines(), 1);
  ASSERT_EQ(prlimit(server.pid(), RLIMIT_FSIZE, &before, nullptr), 0);
  EXPECT_TRUE(Ask("unix:" + quiet.path).status.ok());
  EXPECT_TRUE(Eventually([&] { return lines() >= 2; }));  // logging continues
  server.Signal(SIGTERM);
  EXPECT_EQ(server.WaitForExit(), 0);
  unlink(log.c_str());
}

}  // namespace
}  // namespace tessera
