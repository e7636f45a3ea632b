// tessera.v1.Inference: hands each call to a GenerateStream.
//
// Threads: gRPC's callback threads. Lifetime: until its grpc::Server is destroyed.
#pragma once

#include "server/request/service_context.h"
#include "server/request/stream_registry.h"
#include "tessera/v1/inference.grpc.pb.h"

namespace tessera {

class InferenceService final : public v1::Inference::CallbackService {
 public:
  InferenceService(const ServiceContext* services, StreamRegistry* streams)
      : services_(services), streams_(streams) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;

 private:
  const ServiceContext* const services_;
  StreamRegistry* const streams_;
};

}  // namespace tessera
