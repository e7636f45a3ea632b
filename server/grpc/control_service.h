// Serves tessera.v1.Control, the operator's service, on the admin listener only.
//
// Every method answers at once, on gRPC's callback threads.
#pragma once

#include <string>
#include <utility>

#include "absl/time/time.h"
#include "base/clock.h"
#include "server/request/request_registry.h"
#include "server/request/service_context.h"
#include "tessera/v1/control.grpc.pb.h"

namespace tessera {

class ControlService final : public v1::Control::CallbackService {
 public:
  // `device`: its description for people, "cpu (avx2, 2 threads)".
  ControlService(const ServiceContext* services, RequestRegistry* registry, std::string device)
      : services_(services),
        registry_(registry),
        device_(std::move(device)),
        started_(SteadyNow()) {}

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context,
                                          const v1::GetServerInfoRequest* request,
                                          v1::GetServerInfoResponse* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                         const v1::GetModelInfoRequest* request,
                                         v1::GetModelInfoResponse* response) override;
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context,
                                    const v1::GetLoadRequest* request,
                                    v1::GetLoadResponse* response) override;
  grpc::ServerUnaryReactor* GetCacheStats(grpc::CallbackServerContext* context,
                                          const v1::GetCacheStatsRequest* request,
                                          v1::GetCacheStatsResponse* response) override;
  grpc::ServerUnaryReactor* Abort(grpc::CallbackServerContext* context,
                                  const v1::AbortRequest* request,
                                  v1::AbortResponse* response) override;
  grpc::ServerUnaryReactor* FlushCache(grpc::CallbackServerContext* context,
                                       const v1::FlushCacheRequest* request,
                                       v1::FlushCacheResponse* response) override;
  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* context,
                                  const v1::DrainRequest* request,
                                  v1::DrainResponse* response) override;

 private:
  const ServiceContext* const services_;
  RequestRegistry* const registry_;
  const std::string device_;
  const absl::Time started_;
};

}  // namespace tessera
