#include "server/request/service_context.h"

#include "server/observability/rpc_names.h"

namespace tessera {

grpc::Status EndRpc(const ServiceContext& services, const char* method, const absl::Status& status,
                    absl::string_view tenant, absl::Time received) {
  const grpc::Status wire = ToGrpcStatus(status);
  services.metrics->CountRpc(method, wire.error_code());
  // Polls of GetLoad and the like would drown the rest.
  const LogLevel level = IsServerFault(status) ? LogLevel::kError : LogLevel::kDebug;
  if (services.log->Enabled(level)) {
    services.log->Write(level, "rpc",
                        {{"method", method},
                         {"code", RpcCodes()[wire.error_code()]},
                         {"error", status.message()},
                         {"tenant", tenant},
                         {"seconds", absl::ToDoubleSeconds(SteadyNow() - received)}});
  }
  return wire;
}

absl::StatusOr<std::shared_ptr<Grant>> AdmitRpc(const ServiceContext& services,
                                                const grpc::CallbackServerContext& context,
                                                Right right, absl::Time now) {
  std::vector<absl::string_view> headers;
  const auto [begin, end] = context.client_metadata().equal_range("authorization");
  for (auto header = begin; header != end; ++header) {
    headers.emplace_back(header->second.data(), header->second.size());
  }
  return services.access->Admit(headers, right, now);
}

}  // namespace tessera
