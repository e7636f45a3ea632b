// The memory that an open stream costs the daemon while its request waits, over every transport.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <functional>
#include <list>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "tests/e2e/child_server.h"
#include "tests/server/certificates.h"
#include "tests/server/http_client.h"
#include "tests/server/server_testing.h"

namespace tessera {
namespace {

constexpr int64_t kMostBytes = 64 << 10;  // resident memory of a stream over plain HTTP
constexpr int kMostTokens = 3000;         // an answer takes seconds, so the others wait

int64_t ResidentBytes(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/statm"));
  int64_t all = 0, resident = 0;
  file >> all >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

// Returns the number of requests that wait or run, from the metrics listener, which has no TLS.
int Requests(const ChildServer& server) {
  int sum = 0, value = 0;
  const std::string page = server.HttpGet("/metrics");
  for (const absl::string_view line : absl::StrSplit(page, '\n')) {
    const std::pair<absl::string_view, absl::string_view> halves = absl::StrSplit(line, ' ');
    if (!absl::StartsWith(halves.first, "tessera_num_requests_")) continue;
    if (absl::SimpleAtoi(halves.second, &value)) sum += value;
  }
  return sum;
}

class OpenStreamsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (*TESSERA_SANITIZE != '\0') GTEST_SKIP() << "a sanitizer's memory is not the daemon's";
    rlimit files;
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
    files.rlim_cur = std::min<rlim_t>(files.rlim_max, 4096);  // the daemon inherits it
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
    streams_ = std::min<int>(1000, static_cast<int>(files.rlim_cur) - 100);
    ASSERT_GE(streams_, 500) << "the hard limit of open files is " << files.rlim_max;
  }

  static std::vector<std::string> Flags(std::vector<std::string> more = {}) {
    more.insert(more.end(), {"--max_sequences=1", "--max_queue=1100", "--http_max_connections=1100",
                             "--kv_cache_bytes=64MiB"});
    return more;
  }

  // Returns the bytes of a stream. `open` opens one, `close` closes all.
  int64_t Measure(const char* transport, ChildServer& server, const std::function<void()>& open,
                  const std::function<void()>& close) {
    constexpr int kAtOnce = 20;  // at most the queue of the workers
    EXPECT_TRUE(server.serving()) << server.log();
    int64_t before = 0;
    for (int opened = 0; opened < streams_;) {
      const int next = std::min(streams_, opened + kAtOnce);
      for (; opened < next; ++opened) open();
      EXPECT_TRUE(Eventually([&] { return Requests(server) == opened; }));
      if (HasFailure()) return 0;
      if (opened == kAtOnce)
        before = ResidentBytes(server.pid());  // excludes memory of the first streams
    }
    const int64_t each = (ResidentBytes(server.pid()) - before) / (streams_ - kAtOnce);
    std::printf("%d streams over %s: %.1f KiB each\n", streams_, transport,
                static_cast<double>(each) / 1024);
    close();
    EXPECT_TRUE(Eventually([&] { return Requests(server) == 0; }));
    return each;
  }

  int64_t MeasureHttp(const char* transport, ChildServer& server, const HttpTls* tls) {
    const std::string body = absl::StrCat(
        R"({"messages":[{"role":"user","content":"hello"}],"ignore_eos":true,"stream":true,)",
        R"("max_tokens":)", kMostTokens, "}");
    const std::string request = absl::StrCat("POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\n",
                                             "Content-Length: ", body.size(), "\r\n\r\n", body);
    std::list<HttpClient> clients;
    const auto open = [&] {
      HttpClient& client = tls == nullptr ? clients.emplace_back(server.http())
                                          : clients.emplace_back(server.http(), *tls);
      ASSERT_TRUE(client.connected());
      client.Send(request);
    };
    return Measure(transport, server, open, [&] { clients.clear(); });
  }

  int64_t MeasureGrpc(const char* transport, int streams_of_a_connection) {
    struct Call {
      std::unique_ptr<v1::Inference::Stub> stub;
      grpc::ClientContext context;
      std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader;
    };
    ChildServer server(Flags());
    v1::GenerateRequest request = TextRequest("hello");
    request.mutable_stopping()->set_ignore_eos(true);
    request.mutable_stopping()->set_max_tokens(kMostTokens);
    grpc::ChannelArguments own;
    own.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // connections are not shared
    std::shared_ptr<grpc::Channel> channel;
    std::list<Call> calls;
    const auto open = [&] {
      if (calls.size() % streams_of_a_connection == 0) {
        channel =
            grpc::CreateCustomChannel(server.listen(), grpc::InsecureChannelCredentials(), own);
      }
      Call& call = calls.emplace_back();
      call.stub = v1::Inference::NewStub(channel);
      call.reader = call.stub->Generate(&call.context, request);
    };
    return Measure(transport, server, open, [&] {
      for (Call& call : calls) call.context.TryCancel();
      for (Call& call : calls) call.reader->Finish();
    });
  }

  int streams_ = 0;
};

TEST_F(OpenStreamsTest, AThousandOverHttpCostLittle) {
  ChildServer server(Flags());
  EXPECT_LE(MeasureHttp("plain HTTP", server, nullptr), kMostBytes);
}

// OpenSSL and gRPC decide the memory of these, so there is no bound. The test prints it, and checks
// that it is freed at the end.
TEST_F(OpenStreamsTest, OverTls) {
  TestCertificates files;
  const TestCertificates::Pair pair = files.Make("server");
  ChildServer server(Flags({"--tls_cert=" + pair.cert, "--tls_key=" + pair.key}));
  const HttpTls tls{files.ca(), "", ""};
  EXPECT_GT(MeasureHttp("HTTP with TLS", server, &tls), 0);
}

TEST_F(OpenStreamsTest, OverGrpc) {
  EXPECT_GT(MeasureGrpc("gRPC, 50 on a connection", 50), 0);
  EXPECT_GT(MeasureGrpc("gRPC, each on its own connection", 1), 0);
}

}  // namespace
}  // namespace tessera
