// An OpenAI request body as requests of our own protocol.
//
// Chat completions and completions, with the extensions that vLLM's clients know (top_k, min_p,
// repetition_penalty, min_tokens, ignore_eos, stop_token_ids, priority, cache_salt,
// stream_options.continuous_usage_stats) and ours
// (kv_policy, kv_commit_at). Nothing is ignored in silence: what this server cannot do, or does not
// know, is an error that names the parameter. Absent sampling parameters take the checkpoint's
// generation_config.json; where that does not sample, OpenAI's temperature of 1. Threads: safe.
// Errors: INVALID_ARGUMENT with the parameter's path.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/model/model_config.h"
#include "nlohmann/json.hpp"
#include "tessera/v1/inference.pb.h"

namespace tessera {

enum class OpenAiKind { kChat, kCompletion };

constexpr int kMaxChoices = 16;  // prompts times n

struct OpenAiRequest {
  OpenAiKind kind = OpenAiKind::kChat;
  std::vector<v1::GenerateRequest> prompts;  // one a prompt; request_id is left empty
  int n = 1;                                 // answers of each prompt
  bool stream = false;
  bool include_usage = false;     // a last piece with the usage, when streaming
  bool continuous_usage = false;  // and the counts so far in every piece
};

// A request's body: an object, its depth and number of values within limits.
absl::StatusOr<nlohmann::json> ParseOpenAiJson(absl::string_view body);

absl::StatusOr<OpenAiRequest> ParseOpenAiRequest(OpenAiKind kind, absl::string_view body,
                                                 const ModelConfig& model);

// The bytes and type of "data:image/png;base64,...", or a URL that is yet to be judged (convert.h).
// INVALID_ARGUMENT naming `path`.
absl::Status ParseImageUrl(const std::string& url, absl::string_view path, v1::Image* image);

}  // namespace tessera
