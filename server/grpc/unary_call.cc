#include "server/grpc/unary_call.h"

#include <vector>

#include "server/api/error_details.h"
#include "server/observability/log.h"
#include "server/observability/metrics.h"
#include "server/observability/rpc_names.h"

namespace tessera {

grpc::Status EndRpc(const ServiceContext& services, const char* method, const absl::Status& status,
                    absl::string_view tenant, absl::Time received) {
  const grpc::Status wire = ToGrpcStatus(status);
  services.metrics->CountRpc(method, wire.error_code());
  // At a higher level, polls of GetLoad would drown the rest.
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

absl::StatusOr<std::shared_ptr<Lease>> AdmitRpc(const ServiceContext& services,
                                                const grpc::CallbackServerContext& context,
                                                Permission permission, absl::Time now) {
  std::vector<absl::string_view> headers;
  const auto [begin, end] = context.client_metadata().equal_range("authorization");
  for (auto header = begin; header != end; ++header) {
    headers.emplace_back(header->second.data(), header->second.size());
  }
  return services.access->Admit(headers, permission, now);
}

}  // namespace tessera
