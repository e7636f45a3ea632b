// Serves tessera.v1.Inference: starts a GenerateReactor for each call.
//
// Threads: gRPC's callback threads. Lifetime: until its grpc::Server is destroyed.
#pragma once

#include "server/request/request_registry.h"
#include "server/request/service_context.h"
#include "tessera/v1/inference.grpc.pb.h"

namespace tessera {

class InferenceService final : public v1::Inference::CallbackService {
 public:
  InferenceService(const ServiceContext* services, RequestRegistry* registry)
      : services_(services), registry_(registry) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;

 private:
  const ServiceContext* const services_;
  RequestRegistry* const registry_;
};

}  // namespace tessera
