// What an open stream costs the daemon while its request waits.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <list>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/e2e/child_server.h"
#include "tests/server/http_client.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

constexpr int64_t kMostBytes = 64 << 10;  // of resident memory, each

int64_t ResidentBytes(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/statm"));
  int64_t all = 0, resident = 0;
  file >> all >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

TEST(OpenStreamsTest, AThousandOverHttpCostLittle) {
  if (*TESSERA_SANITIZE != '\0') GTEST_SKIP() << "a sanitizer's memory is not the daemon's";
  rlimit files;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
  files.rlim_cur = std::min<rlim_t>(files.rlim_max, 4096);  // the daemon inherits it
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
  const int streams = std::min<int>(1000, static_cast<int>(files.rlim_cur) - 100);
  ASSERT_GE(streams, 500) << "the hard limit of open files is " << files.rlim_max;
  ChildServer server({"--max_sequences=1", "--max_queue=1100", "--http_max_connections=1100",
                      "--kv_cache_bytes=64MiB"});
  ASSERT_TRUE(server.serving());
  // Each answer would take seconds, so all but the first wait.
  const std::string body = R"({"messages":[{"role":"user","content":"hello"}],"max_tokens":3000,)"
                           R"("ignore_eos":true,"stream":true})";
  const std::string request = absl::StrCat("POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\n",
                                           "Content-Length: ", body.size(), "\r\n\r\n", body);
  std::list<HttpClient> clients;
  const auto open = [&](int count) {
    while (static_cast<int>(clients.size()) < count) {
      clients.emplace_back(server.http()).Send(request);
      // Not more at once than there are places with the workers.
      if (clients.size() % 20 != 0 && static_cast<int>(clients.size()) != count) continue;
      ASSERT_TRUE(Eventually([&] {
        const auto load = server.Load();
        return load.waiting() + load.running() == static_cast<int>(clients.size());
      }));
    }
  };
  open(20);  // what the first ones make grow is no stream's
  const int64_t before = ResidentBytes(server.pid());
  open(streams);
  const int64_t each = (ResidentBytes(server.pid()) - before) / (streams - 20);
  RecordProperty("bytes_each", absl::StrCat(each));
  EXPECT_LE(each, kMostBytes);
  clients.clear();
  EXPECT_TRUE(Eventually([&] {
    const auto load = server.Load();
    return load.waiting() + load.running() == 0;
  }));
}

}  // namespace
}  // namespace tessera
