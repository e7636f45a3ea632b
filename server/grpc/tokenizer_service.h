// Serves tessera.v1.Tokenizer, with the same code that Generate uses.
//
// Work runs on the worker pool. Threads: gRPC's callback threads.
#pragma once

#include "server/request/service_context.h"
#include "tessera/v1/tokenizer.grpc.pb.h"

namespace tessera {

class TokenizerService final : public v1::Tokenizer::CallbackService {
 public:
  explicit TokenizerService(const ServiceContext* services) : services_(services) {}

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* CountTokens(grpc::CallbackServerContext* context,
                                        const v1::CountTokensRequest* request,
                                        v1::CountTokensResponse* response) override;
  grpc::ServerUnaryReactor* ApplyTemplate(grpc::CallbackServerContext* context,
                                          const v1::ApplyTemplateRequest* request,
                                          v1::ApplyTemplateResponse* response) override;

 private:
  const ServiceContext* const services_;
};

}  // namespace tessera
