// Clients that vanish without closing their connections. The daemon frees the connections and what
// they hold.
#include <signal.h>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "gtest/gtest.h"
#include "tests/e2e/child_server.h"
#include "tests/server/http_client.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

// Returns the kernel's timer of the server's end of a connection. "02" is the keep-alive timer of
// TCP.
std::string TimerOf(const std::string& server_address) {
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(server_address.substr(server_address.rfind(':') + 1), &port));
  const std::string local = absl::StrFormat("0100007F:%04X", port);
  for (const auto line : absl::StrSplit(ReadAnyFile("/proc/net/tcp"), '\n')) {
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    constexpr absl::string_view kEstablished = "01";
    if (words.size() > 5 && words[1] == local && words[3] == kEstablished) {
      return std::string(words[5].substr(0, 2));
    }
  }
  return "no connection";
}

// Speaks enough HTTP/2 to be a client, and never answers a ping.
TEST(DeadPeerTest, AGrpcConnectionThatAnswersNoPingIsClosed) {
  ChildServer server({"--keepalive_time=100ms", "--keepalive_timeout=100ms"});
  HttpClient client(server.listen());
  client.Send(absl::StrCat("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                           absl::string_view("\0\0\0\4\0\0\0\0\0", 9)));  // empty settings
  EXPECT_TRUE(client.ends_within(absl::Seconds(8)));
}

// A stopped process keeps its sockets. Its kernel acknowledges packets, but no answer comes.
TEST(DeadPeerTest, AStoppedGrpcClientsRequestIsFreed) {
  ChildServer server({"--keepalive_time=100ms", "--keepalive_timeout=100ms", "--stall_timeout=1h"});
  ChildProcess client({"tessera"},
                      {"chat", "--address=" + server.listen(), "--message=Tell a story.",
                       "--ignore_eos", "--max_tokens=3900"});
  ASSERT_TRUE(Eventually([&] { return server.Load().running() == 1; }));
  client.Signal(SIGSTOP);
  EXPECT_TRUE(Eventually([&] {
    const auto load = server.Load();
    return load.running() == 0 && load.kv_bytes_used() == 0;
  }));
  EXPECT_TRUE(Eventually([&] {  // and not because the answer was complete
    return absl::StrContains(server.log(), R"("code":"CANCELLED")");
  }));
}

// The client's machine is gone, and only TCP's keep-alive can tell.
TEST(DeadPeerTest, AnHttpConnectionIsAskedWhetherItLives) {
  ChildServer server({"--keepalive_time=1s"});
  HttpClient client(server.http());
  ASSERT_EQ(client.Get("/health").status, 200);
  EXPECT_TRUE(Eventually([&] { return TimerOf(server.http()) == "02"; })) << TimerOf(server.http());
}

}  // namespace
}  // namespace tessera
