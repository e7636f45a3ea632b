#include "server/service_context.h"

#include "server/rpc_names.h"

namespace tessera {

grpc::Status EndRpc(const ServiceContext& services, const char* method, const absl::Status& status,
                    absl::string_view request_id, absl::Time received) {
  const grpc::Status wire = ToGrpcStatus(status, request_id);
  services.metrics->CountRpc(method, wire.error_code());
  // Polls of GetLoad and the like would drown the rest.
  const LogLevel level = IsServerFault(status) ? LogLevel::kError : LogLevel::kDebug;
  if (services.log->Enabled(level)) {
    services.log->Write(level, "rpc",
                        {{"method", method},
                         {"code", RpcCodes()[wire.error_code()]},
                         {"error", status.message()},
                         {"request_id", request_id},
                         {"seconds", absl::ToDoubleSeconds(absl::Now() - received)}});
  }
  return wire;
}

}  // namespace tessera
