#include "server/grpc/inference_service.h"

#include <memory>
#include <utility>

#include "server/grpc/generate_stream.h"

namespace tessera {

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  // gRPC made the message for this call alone, and would keep it (with megabytes of pictures) until
  // the last token: taking its content lets it go as soon as the pictures are decoded.
  auto* owned = const_cast<v1::GenerateRequest*>(request);
  auto stream = std::make_shared<GenerateStream>(services_, streams_, context, std::move(*owned));
  streams_->Add(stream);
  stream->Start();
  return stream.get();
}

}  // namespace tessera
