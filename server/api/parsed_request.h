// A client's request, parsed and validated once.
//
// gRPC sends a GenerateRequest, and HTTP makes one from JSON. Either becomes a ParsedRequest: an
// engine request that lacks only what depends on the prompt's tokens, and the prompt's parts.
// Later steps check only what could not be known here.
//
// Errors name the field by its path ("content[2].image"). A field that this build does not know is
// an error too: to ignore it would answer another question than the client's. Threads: safe.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cache/policy/policy.h"
#include "engine/model/model_config.h"
#include "engine/prompt/prompt_builder.h"
#include "engine/request/request.h"
#include "google/protobuf/message.h"
#include "server/api/field_paths.h"
#include "server/api/reply.h"
#include "tessera/v1/inference.pb.h"
#include "tessera/v1/tokenizer.pb.h"

namespace tessera {

class UrlRules;

// The rules for requests. The only copy of these limits.
struct RequestRules {
  const ModelConfig* model = nullptr;
  int max_images = 0;
  int64_t max_text_bytes = 0;  // of all text of a prompt together
  std::shared_ptr<const Policy> default_policy;
  std::vector<std::string> allowed_policies;  // names; empty: all
  bool allow_explain = false;
  const UrlRules* image_urls = nullptr;  // null: the server fetches no images
};

// An image that the client named by URL. Its bytes go to PromptInput::images[image].
struct ImageUrl {
  size_t image = 0;
  std::string url;
};

struct ParsedPrompt {
  PromptInput input;  // images without data are those of `urls`
  PromptPaths paths;
  std::vector<ImageUrl> urls;
};

struct ParsedRequest {
  // All but prompt, stop.max_tokens, commit_tokens, received and deadline.
  Request request;
  std::optional<int> max_tokens;  // nothing: as many as the context leaves, up to the default
  int default_max_tokens = 0;     // > 0; the caller sets it
  bool commit_at_question = false;
  ReplyOptions reply;
  ParsedPrompt prompt;
};

// Errors: INVALID_ARGUMENT, NOT_FOUND (model), FAILED_PRECONDITION (policy or explanation not
// allowed).
absl::StatusOr<ParsedRequest> ParseRequest(v1::GenerateRequest in, const RequestRules& rules);

// Parses the prompt alone, and moves its text and bytes out of `in`. Only Generate accepts URLs of
// images.
absl::StatusOr<ParsedPrompt> ParsePrompt(v1::GenerateRequest* in, const RequestRules& rules);
absl::StatusOr<ParsedPrompt> ParsePrompt(v1::CountTokensRequest in, const RequestRules& rules);
absl::StatusOr<ParsedPrompt> ParsePrompt(v1::ApplyTemplateRequest in, const RequestRules& rules);

// Returns the engine's request, once its prompt is built: sets max_tokens and the commit point.
// INVALID_ARGUMENT if prompt and max_tokens exceed `context_tokens`, or if the commit point is
// after an image that does not exist. REQUIRES: the prompt is shorter than the context.
absl::StatusOr<Request> CompleteRequest(ParsedRequest parsed, Prompt prompt, int context_tokens);

// Returns NOT_FOUND on `model`.
absl::Status ModelNotFound(absl::string_view served);

// Returns INVALID_ARGUMENT with the path of the first field that this build does not know, or for a
// message of absurdly many parts.
absl::Status CheckNoUnknownFields(const google::protobuf::Message& message);

// Checks a client's request id: 1 to 128 visible ASCII characters.
absl::Status CheckRequestId(absl::string_view path, absl::string_view id);

}  // namespace tessera
