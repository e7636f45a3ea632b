// Memory runs out. A request that is too large for the remaining memory is refused and disturbs no
// other request. If none is left, the process ends with a line that says so. No client waits
// forever.
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>
#include <zlib.h>

#include <fstream>
#include <future>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/process/crash_handler.h"
#include "tests/e2e/child_server.h"
#include "tests/server/server_testing.h"
#include "tests/support/paths.h"

namespace tessera {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

constexpr int64_t kMiB = 1 << 20;

// Returns the address space that a process uses.
int64_t VirtualBytes(pid_t pid) {
  std::ifstream in(absl::StrCat("/proc/", pid, "/statm"));
  int64_t pages = 0;
  in >> pages;
  EXPECT_GT(pages, 0);
  return pages * sysconf(_SC_PAGESIZE);
}

// Limits the process to `more` bytes beyond its present memory.
void Limit(ChildServer& server, int64_t more) {
  const auto bytes = static_cast<rlim_t>(VirtualBytes(server.pid()) + more);
  const rlimit limit = {bytes, RLIM_INFINITY};
  ASSERT_EQ(prlimit(server.pid(), RLIMIT_AS, &limit, nullptr), 0);
}

void Unlimit(ChildServer& server) {
  const rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
  ASSERT_EQ(prlimit(server.pid(), RLIMIT_AS, &limit, nullptr), 0);
}

// Makes an image whose header says side x side but whose data is short. A decoder allocates the
// memory first, so such an image costs memory and no other work.
std::string LargePicture(uint32_t side) {
  std::string png = ReadTestFile("models/demo/pictures/shapes.png");
  constexpr size_t kHeader = 12, kWidth = 16, kHeaderBytes = 17;  // "IHDR" and its 13 bytes
  const auto put = [&png](size_t at, uint32_t value) {
    for (int i = 0; i < 4; ++i) png[at + i] = static_cast<char>(value >> (24 - 8 * i));
  };
  put(kWidth, side);
  put(kWidth + 4, side);
  put(kHeader + kHeaderBytes,
      static_cast<uint32_t>(
          crc32(0, reinterpret_cast<const Bytef*>(png.data()) + kHeader, kHeaderBytes)));
  return png;
}

v1::GenerateRequest Picture(const std::string& bytes) {
  v1::GenerateRequest request;
  request.add_content()->mutable_image()->set_data(bytes);
  request.add_content()->set_text("What is this?");
  request.mutable_stopping()->set_max_tokens(4);
  return request;
}

TEST(FaultMemoryTest, AnArenaLargerThanTheMachineIsRefused) {
  const RunResult result =
      RunTesserad({"--kv_cache_bytes=1TiB", "--listen=127.0.0.1:0", "--admin_listen=off",
                   "--http_listen=off", "--metrics_listen=off"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.output, HasSubstr("--kv_cache_bytes=1TiB: this machine has "));
}

class LimitedMemoryTest : public testing::Test {
 protected:
  void SetUp() override {
    if (*TESSERA_SANITIZE != '\0') {
      GTEST_SKIP() << "a sanitizer takes terabytes of addresses, and ends where it gets no more";
    }
  }
};

TEST_F(LimitedMemoryTest, AnArenaThatTheProcessMayNotHaveEndsTheStart) {
  const RunResult result =
      RunProgram({"/bin/sh", "-c", "ulimit -d 524288; exec \"$0\" \"$@\"", BinaryPath("tesserad")},
                 {"--kv_cache_bytes=1GiB", "--listen=127.0.0.1:0", "--admin_listen=off",
                  "--http_listen=off", "--metrics_listen=off"});
  EXPECT_EQ(result.status, CrashHandler::kExitFault);
  EXPECT_THAT(result.output, HasSubstr("tesserad: out of memory: 1073741824 bytes"));
}

TEST_F(LimitedMemoryTest, ARequestTooLargeForWhatIsLeftIsRefusedAlone) {
  ChildServer server;
  const auto good = Picture(ReadTestFile("models/demo/pictures/shapes.png"));
  const Answer before = Generate(server.inference(), good);
  ASSERT_TRUE(before.status.ok()) << before.status.error_message();
  const auto large = Picture(LargePicture(8000));  // 183 MiB of pixels
  // While there is memory, the request fails for another reason.
  EXPECT_EQ(View(Generate(server.inference(), large).status).code,
            grpc::StatusCode::INVALID_ARGUMENT);
  Limit(server, 100 * kMiB);
  const ErrorView error = View(Generate(server.inference(), large).status);
  EXPECT_EQ(error.code, grpc::StatusCode::RESOURCE_EXHAUSTED) << error.message;
  EXPECT_EQ(error.reason, "OUT_OF_MEMORY");
  EXPECT_TRUE(error.retry.has_value());
  const Answer after = Generate(server.inference(), good);
  EXPECT_TRUE(after.status.ok()) << after.status.error_message();
  EXPECT_EQ(after.text, before.text);
  Unlimit(server);
  server.Signal(SIGTERM);
  EXPECT_EQ(server.WaitForExit(), 0);
}

TEST_F(LimitedMemoryTest, WhereNothingIsLeftNobodyHangs) {
  ChildServer server({"--drain_timeout=1s"});
  Limit(server, 0);
  std::vector<std::future<grpc::Status>> calls;
  for (int i = 0; i < 8; ++i) {
    calls.push_back(std::async(std::launch::async, [&, i] {
      // New caches, logits and output queues need memory at different moments.
      v1::GenerateRequest request = i % 2 == 0
                                        ? Picture(ReadTestFile("models/demo/pictures/shapes.png"))
                                        : TextRequest(std::string(100'000, 'a'));
      request.mutable_response()->set_top_logprobs(20);
      return Generate(server.inference(), request).status;
    }));
  }
  for (auto& call : calls) {
    const grpc::Status status = call.get();
    EXPECT_NE(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED) << status.error_message();
  }
  server.Signal(SIGTERM);  // if it still runs
  const int status = server.WaitForExit();
  // A drain, the daemon's own end without memory, or a library's abort.
  EXPECT_THAT(status, AnyOf(0, CrashHandler::kExitFault, 128 + SIGABRT));
  if (status != 0) {
    EXPECT_THAT(server.log(), HasSubstr("\ntesserad: "));
  }
}

}  // namespace
}  // namespace tessera
