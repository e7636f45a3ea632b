#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "client/commands/commands.h"
#include "gmock/gmock.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/server_builder.h"
#include "grpcpp/support/server_interceptor.h"
#include "gtest/gtest.h"
#include "tessera/v1/control.grpc.pb.h"
#include "tests/client/run_command.h"

namespace tessera::client {
namespace {

using testing::HasSubstr;

// Counts the calls that a server gets.
class CallCounter final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit CallCounter(std::atomic<int>* calls) : calls_(calls) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo*) override {
    ++*calls_;
    calls_->notify_all();
    return nullptr;
  }

 private:
  std::atomic<int>* calls_;
};

class ClientHealth : public testing::Test {
 protected:
  ClientHealth() {
    grpc::EnableDefaultHealthCheckService(true);
    std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> counters;
    counters.push_back(std::make_unique<CallCounter>(&calls_));
    grpc::ServerBuilder builder;
    builder.experimental().SetInterceptorCreators(std::move(counters));
    int port = 0;
    builder.RegisterService(&control_);  // a server needs a service in addition to health
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    server_ = builder.BuildAndStart();
    TESSERA_CHECK(server_ != nullptr);
    address_ = absl::StrCat("--address=127.0.0.1:", port);
    Set("", true);
    Set("live", false);
  }
  ~ClientHealth() override { server_->Shutdown(std::chrono::system_clock::now()); }

  void Set(const std::string& service, bool serving) {
    server_->GetHealthCheckService()->SetServingStatus(service, serving);
  }

  std::atomic<int> calls_{0};
  v1::Control::Service control_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

TEST_F(ClientHealth, SaysWhatTheServerSays) {
  const Outcome ready = RunCommand({"health", address_});
  EXPECT_EQ(ready.code, 0) << ready.err;
  EXPECT_EQ(ready.out, "SERVING\n");
  const Outcome dead = RunCommand({"health", address_, "--service=live"});
  EXPECT_EQ(dead.code, 1);
  EXPECT_EQ(dead.out, "NOT_SERVING\n");
  const Outcome unknown = RunCommand({"health", address_, "--service=nonsense"});
  EXPECT_EQ(unknown.code, 1);
  EXPECT_THAT(unknown.err, HasSubstr("NOT_FOUND"));
  EXPECT_EQ(calls_, 3);
  EXPECT_EQ(RunCommand({"health", address_, "--service", std::string(128, 'x')}).code, 2);
}

TEST_F(ClientHealth, WaitsUntilItServes) {
  std::thread server([this] {
    for (int seen = calls_; seen < 3; seen = calls_) calls_.wait(seen);
    Set("live", true);
  });
  const Outcome outcome = RunCommand({"health", address_, "--service=live", "--wait=1h"});
  server.join();
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "SERVING\n");
}

TEST_F(ClientHealth, GivesUpWaiting) {
  const Outcome outcome = RunCommand({"health", address_, "--service=live", "--wait=150ms"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.out, "NOT_SERVING\n");
  EXPECT_GE(calls_, 2);
}

TEST_F(ClientHealth, NobodyThere) {
  server_->Shutdown();
  const Outcome outcome = RunCommand({"health", address_, "--wait=1ms"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("UNAVAILABLE"));
}

}  // namespace
}  // namespace tessera::client
