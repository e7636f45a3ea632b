#include "server/listener.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpc/support/log.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/server_builder.h"
#include "kernels/base.h"
#include "server/address.h"
#include "server/log.h"

namespace tessera {
namespace {

// Pings keep connections alive through proxies that forget idle ones, and find dead peers.
constexpr int kKeepaliveTimeMs = 60'000;
constexpr int kKeepaliveTimeoutMs = 20'000;
// gRPC's default of five minutes punishes clients with common keepalive settings.
constexpr int kMinPingIntervalMs = 10'000;

// gRPC calls back a plain function, so this is the one global.
std::atomic<Logger*> grpc_log{nullptr};

void WriteGrpcLog(gpr_log_func_args* args) {
  Logger* log = grpc_log.load();
  if (log == nullptr) return;
  const LogLevel level =
      args->severity == GPR_LOG_SEVERITY_ERROR ? LogLevel::kWarning : LogLevel::kDebug;
  log->Write(level, args->message, {{"component", "grpc"}, {"line", args->line}});
}

void SetTransport(const ServerConfig& config, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(static_cast<int>(config.max_message_bytes));
  // Otherwise a second daemon on the same port gets half of the connections instead of an error.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              kMinPingIntervalMs);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, config.max_concurrent_streams);
  if (config.max_connection_age != absl::InfiniteDuration()) {
    constexpr int64_t kMaxMs = 1 << 30;
    const int64_t age = absl::ToInt64Milliseconds(config.max_connection_age);
    // Calls that run may finish: a shorter grace would cut long answers.
    const int64_t grace = absl::ToInt64Milliseconds(config.max_request_time);
    builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS,
                                static_cast<int>(std::min(age, kMaxMs)));
    builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
                                static_cast<int>(std::min(grace, kMaxMs)));
  }
  grpc::ResourceQuota quota("tesserad");
  quota.Resize(static_cast<size_t>(config.rpc_memory_bytes));
  builder->SetResourceQuota(quota);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Listener>> Listener::Start(
    const std::string& address, const ServerConfig& config,
    const std::vector<grpc::Service*>& services) {
  ASSIGN_OR_RETURN(const Address parsed, ParseAddress(address));
  RETURN_IF_ERROR(CheckAddressFree(parsed));
  grpc::ServerBuilder builder;
  SetTransport(config, &builder);
  int port = 0;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
  for (grpc::Service* service : services) builder.RegisterService(service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    return absl::FailedPreconditionError(absl::StrCat(address, ": cannot listen"));
  }
  std::string bound = parsed.unix_path.empty()
                          ? absl::StrCat(address.substr(0, address.rfind(':')), ":", port)
                          : address;
  return std::unique_ptr<Listener>(new Listener(std::move(server), std::move(bound), port));
}

Listener::Listener(std::unique_ptr<grpc::Server> server, std::string address, int port)
    : server_(std::move(server)), address_(std::move(address)), port_(port) {}

Listener::~Listener() { Shutdown(absl::Now()); }

void Listener::Shutdown(absl::Time deadline) {
  if (server_ == nullptr) return;
  server_->Shutdown(absl::ToChronoTime(deadline));
  server_ = nullptr;
}

void SetUpGrpc(bool reflection, Logger* log) {
  grpc_log = log;
  gpr_set_log_function(WriteGrpcLog);
  grpc::EnableDefaultHealthCheckService(true);
  if (reflection) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
}

}  // namespace tessera
