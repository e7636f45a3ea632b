#include "server/grpc/inference_service.h"

#include <utility>

#include "server/grpc/generate_reactor.h"

namespace tessera {

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  // gRPC made the message for this call alone, and would keep it, with megabytes of images, until
  // the last token. Moving its content out frees the images as soon as they are decoded.
  auto* owned = const_cast<v1::GenerateRequest*>(request);
  return GenerateReactor::Start(services_, registry_, context, std::move(*owned));
}

}  // namespace tessera
