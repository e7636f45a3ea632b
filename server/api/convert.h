// From protobuf to the engine's structs, with every check that needs no picture and no tokenizer,
// and back.
//
// Errors of requests name the field by its path ("content[2].image"), so that a client knows which
// of its inputs is wrong. Fields this build does not know are errors too: ignoring them would
// silently answer another question than the one asked. Threads: safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cache/policy/policy.h"
#include "engine/model/model_config.h"
#include "engine/prompt/prompt_builder.h"
#include "engine/request/explanation.h"
#include "engine/request/request.h"
#include "engine/text/tokenizer.h"
#include "google/protobuf/message.h"
#include "server/api/field_paths.h"
#include "tessera/v1/inference.pb.h"
#include "tessera/v1/tokenizer.pb.h"

namespace tessera {

class UrlRules;

struct ConvertOptions {
  const ModelConfig* model = nullptr;
  int context_tokens = 0;
  int max_images = 0;
  int64_t max_text_bytes = 0;
  std::shared_ptr<const Policy> default_policy;
  std::vector<std::string> allowed_policies;  // names; empty: all
  bool allow_explain = false;
  const UrlRules* image_urls = nullptr;  // null: no picture is fetched
};

// All of a request but its prompt's tokens. stop.max_tokens stays 0 when the request leaves it to
// the server (see SetMaxTokens). `id` is the request's id, if it has one.
// INVALID_ARGUMENT, NOT_FOUND (model), FAILED_PRECONDITION (policy or explanation not allowed).
absl::StatusOr<Request> ConvertRequest(const v1::GenerateRequest& in,
                                       const ConvertOptions& options);

struct ConvertedPrompt {
  PromptInput input;
  PromptPaths paths;
};

// The prompt's parts. Views into `in` remain: it must outlive the result. A picture that is named
// by a URL has no data; only Generate takes one.
absl::StatusOr<ConvertedPrompt> ConvertPrompt(const v1::GenerateRequest& in,
                                              const ConvertOptions& options);
absl::StatusOr<ConvertedPrompt> ConvertPrompt(const v1::CountTokensRequest& in,
                                              const ConvertOptions& options);
absl::StatusOr<ConvertedPrompt> ConvertPrompt(const v1::ApplyTemplateRequest& in,
                                              const ConvertOptions& options);

// Once the prompt's length is known: gives an absent max_tokens its value, the least of
// `default_max_tokens` and what the context leaves. INVALID_ARGUMENT if the prompt, or the prompt
// with the asked max_tokens, is longer than the context.
absl::Status SetMaxTokens(const v1::GenerateRequest& in, int context_tokens, int default_max_tokens,
                          Request* request);

// Once the prompt is built: where kv_policy.commit_at lies in it. INVALID_ARGUMENT if it has no
// image to commit after, or for a value this build does not know.
absl::Status SetCommitPoint(const v1::GenerateRequest& in, Request* request);

// NOT_FOUND on `model`.
absl::Status ModelNotFound(absl::string_view served);

// INVALID_ARGUMENT with the path of the first field that this build does not know, or for a message
// of absurdly many parts.
absl::Status CheckNoUnknownFields(const google::protobuf::Message& message);

// A client's request id: 1 to 128 visible ASCII characters.
absl::Status CheckRequestId(absl::string_view path, absl::string_view id);

// --- replies
struct ReplyOptions {
  bool token_ids = false;
  bool logprobs = false;
};
// False when the event holds nothing to tell (no text, and no tokens that were asked for).
bool ConvertDelta(const Event& event, const ReplyOptions& options, const Tokenizer& tokenizer,
                  v1::TokenDelta* out);
void ConvertFinished(const Event& event, v1::Finished* out);
void ConvertExplanation(const Explanation& in, const ProcessorConfig& processor,
                        const Tokenizer& tokenizer, v1::Explanation* out);
// A token for people: its text, or the vocabulary's piece where the bytes alone are not UTF-8.
std::string TokenText(const Tokenizer& tokenizer, int32_t id);

}  // namespace tessera
