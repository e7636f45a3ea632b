#include "server/grpc/listener.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "base/clock.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/server_builder.h"
#include "server/grpc/grpc_log.h"
#include "server/grpc/grpc_tls.h"
#include "server/net/address.h"

namespace tessera {
namespace {

// gRPC's default of five minutes punishes clients with common keepalive settings.
constexpr int kMinPingIntervalMs = 10'000;
// The HTTP server has the same limit.
constexpr int kMaxMetadataBytes = 16 << 10;

void SetTransport(const ServerConfig& config, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(static_cast<int>(config.max_message_bytes));
  // Otherwise a second daemon on the same port gets half of the connections instead of an error.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              kMinPingIntervalMs);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, config.max_concurrent_streams);
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  const auto set_time = [builder](const char* name, absl::Duration value) {
    constexpr int64_t kMaxMs = 1 << 30;
    builder->AddChannelArgument(
        name, static_cast<int>(std::min(absl::ToInt64Milliseconds(value), kMaxMs)));
  };
  // Pings keep connections alive through proxies that forget idle ones, and find dead peers.
  set_time(GRPC_ARG_KEEPALIVE_TIME_MS, config.keepalive_time);
  set_time(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, config.keepalive_timeout);
  set_time(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, config.handshake_timeout);
  if (config.idle_timeout != absl::InfiniteDuration()) {
    set_time(GRPC_ARG_MAX_CONNECTION_IDLE_MS, config.idle_timeout);
  }
  if (config.max_connection_age != absl::InfiniteDuration()) {
    // Running calls may finish: a shorter grace would cut long answers.
    set_time(GRPC_ARG_MAX_CONNECTION_AGE_MS, config.max_connection_age);
    set_time(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, config.max_request_time);
  }
  grpc::ResourceQuota quota("tesserad");
  quota.Resize(static_cast<size_t>(config.rpc_memory_bytes));
  builder->SetResourceQuota(quota);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Listener>> Listener::Start(
    const std::string& address, const ServerConfig& config,
    const std::vector<grpc::Service*>& services, const TlsSource* tls) {
  ASSIGN_OR_RETURN(const Address parsed, ParseAddress(address));
  RETURN_IF_ERROR(CheckAddressFree(parsed));
  grpc::ServerBuilder builder;
  SetTransport(config, &builder);
  int port = 0;
  const std::shared_ptr<grpc::ServerCredentials> credentials =
      tls == nullptr || !parsed.unix_path.empty() ? grpc::InsecureServerCredentials()
                                                  : MakeTlsCredentials(tls);
  builder.AddListeningPort(address, credentials, &port);
  for (grpc::Service* service : services) builder.RegisterService(service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    return absl::FailedPreconditionError(absl::StrCat(address, ": cannot listen"));
  }
  std::string bound = parsed.unix_path.empty()
                          ? absl::StrCat(address.substr(0, address.rfind(':')), ":", port)
                          : address;
  return std::unique_ptr<Listener>(
      new Listener(credentials, std::move(server), std::move(bound), port));
}

Listener::Listener(std::shared_ptr<grpc::ServerCredentials> credentials,
                   std::unique_ptr<grpc::Server> server, std::string address, int port)
    : credentials_(std::move(credentials)),
      server_(std::move(server)),
      address_(std::move(address)),
      port_(port) {}

Listener::~Listener() { Shutdown(SteadyNow()); }

void Listener::Shutdown(absl::Time deadline) {
  if (server_ == nullptr) return;
  server_->Shutdown(ToDate(deadline));
  server_ = nullptr;
}

void SetUpGrpc(bool reflection, Logger* log) {
  SetGrpcLog(log);
  grpc::EnableDefaultHealthCheckService(true);
  if (reflection) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
}

}  // namespace tessera
