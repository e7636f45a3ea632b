#include "server/grpc/tokenizer_service.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "base/clock.h"
#include "engine/text/chat_template.h"
#include "server/api/error_details.h"
#include "server/grpc/unary_call.h"
#include "server/process/config.h"
#include "server/process/lifecycle.h"

namespace tessera {
namespace {

constexpr absl::string_view kImageToken = "<image>";  // in prompts for people

absl::Status Tokenize(const ServiceContext& services, const v1::TokenizeRequest& request,
                      v1::TokenizeResponse* response) {
  RETURN_IF_ERROR(CheckNoUnknownFields(request));
  if (static_cast<int64_t>(request.text().size()) > services.config->max_text_bytes) {
    return FieldError("text",
                      absl::StrCat("longer than ", services.config->max_text_bytes, " bytes"),
                      reason::kLimitExceeded);
  }
  const Tokenizer& tokenizer = *services.runtime->tokenizer;
  const bool special = !request.has_add_special_tokens() || request.add_special_tokens();
  std::vector<int32_t> ids;
  if (special && tokenizer.add_bos()) ids.push_back(tokenizer.bos());
  const std::vector<int32_t> text = tokenizer.Encode(request.text(), /*first=*/true);
  ids.insert(ids.end(), text.begin(), text.end());
  response->mutable_ids()->Add(ids.begin(), ids.end());
  for (const int32_t id : ids) response->add_pieces(tokenizer.Piece(id));
  return absl::OkStatus();
}

absl::Status Detokenize(const ServiceContext& services, const v1::DetokenizeRequest& request,
                        v1::DetokenizeResponse* response) {
  RETURN_IF_ERROR(CheckNoUnknownFields(request));
  const int vocab = services.runtime->model.text.vocab;
  for (int i = 0; i < request.ids_size(); ++i) {
    if (request.ids(i) < 0 || request.ids(i) >= vocab) {
      return FieldError(absl::StrCat("ids[", i, "]"),
                        absl::StrCat(request.ids(i), " is outside the vocabulary of ", vocab));
    }
  }
  response->set_text(
      services.runtime->tokenizer->Decode({request.ids().begin(), request.ids().end()}));
  return absl::OkStatus();
}

absl::Status CountTokens(const ServiceContext& services, const v1::CountTokensRequest& request,
                         v1::CountTokensResponse* response) {
  ASSIGN_OR_RETURN(const ParsedPrompt prompt, ParsePrompt(request, services.rules));
  const auto counts = services.runtime->prompts->Count(prompt.input);
  if (!counts.ok()) return WithProtoPath(counts.status(), prompt.paths);
  response->set_tokens(counts->first);
  response->set_image_tokens(counts->second);
  return absl::OkStatus();
}

absl::Status ApplyTemplate(const ServiceContext& services, const v1::ApplyTemplateRequest& request,
                           v1::ApplyTemplateResponse* response) {
  ASSIGN_OR_RETURN(const ParsedPrompt prompt, ParsePrompt(request, services.rules));
  const auto pieces =
      ApplyChatTemplate(services.runtime->model.chat_template, prompt.input.messages);
  if (!pieces.ok()) return WithProtoPath(pieces.status(), prompt.paths);
  response->set_prompt(RenderPieces(*pieces, kImageToken));
  return absl::OkStatus();
}

// Runs `method` on a worker if the server takes work. Request and response live until the RPC is
// finished.
template <class Request, class Response>
grpc::ServerUnaryReactor* OnWorker(const ServiceContext& services,
                                   grpc::CallbackServerContext* context, const char* name,
                                   absl::Status (*method)(const ServiceContext&, const Request&,
                                                          Response*),
                                   const Request* request, Response* response) {
  const absl::Status accepting = services.lifecycle->CheckAccepting(SteadyNow());
  if (!accepting.ok()) {
    return RunUnary(services, nullptr, context, name, Permission::kInference,
                    [accepting] { return accepting; });
  }
  return RunUnary(
      services, services.workers, context, name, Permission::kInference,
      [&services, method, request, response] { return method(services, *request, response); });
}

}  // namespace

grpc::ServerUnaryReactor* TokenizerService::Tokenize(grpc::CallbackServerContext* context,
                                                     const v1::TokenizeRequest* request,
                                                     v1::TokenizeResponse* response) {
  return OnWorker(*services_, context, "Tokenize", &tessera::Tokenize, request, response);
}

grpc::ServerUnaryReactor* TokenizerService::Detokenize(grpc::CallbackServerContext* context,
                                                       const v1::DetokenizeRequest* request,
                                                       v1::DetokenizeResponse* response) {
  return OnWorker(*services_, context, "Detokenize", &tessera::Detokenize, request, response);
}

grpc::ServerUnaryReactor* TokenizerService::CountTokens(grpc::CallbackServerContext* context,
                                                        const v1::CountTokensRequest* request,
                                                        v1::CountTokensResponse* response) {
  return OnWorker(*services_, context, "CountTokens", &tessera::CountTokens, request, response);
}

grpc::ServerUnaryReactor* TokenizerService::ApplyTemplate(grpc::CallbackServerContext* context,
                                                          const v1::ApplyTemplateRequest* request,
                                                          v1::ApplyTemplateResponse* response) {
  return OnWorker(*services_, context, "ApplyTemplate", &tessera::ApplyTemplate, request, response);
}

}  // namespace tessera
