// Parses an OpenAI request body into requests of our own protocol.
//
// It takes chat completions and completions, the extensions of vLLM's clients (top_k, min_p,
// repetition_penalty, min_tokens, ignore_eos, stop_token_ids, priority, cache_salt,
// stream_options.continuous_usage_stats) and ours (kv_policy, kv_commit_at). Nothing is ignored
// silently: a parameter that this server does not know or support is an error that names it. Absent
// sampling parameters take the checkpoint's generation_config.json; if that does not sample, the
// temperature is OpenAI's default, 1. Threads: safe. Errors: INVALID_ARGUMENT with the parameter's
// path.
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
  std::vector<v1::GenerateRequest> prompts;  // without request_id
  int n = 1;                                 // answers to each prompt
  bool stream = false;
  bool include_usage = false;     // a last piece with the usage, when streaming
  bool continuous_usage = false;  // the counts so far in every piece
};

// Parses a body: an object, with its depth and number of values within limits.
absl::StatusOr<nlohmann::json> ParseOpenAiJson(absl::string_view body);

absl::StatusOr<OpenAiRequest> ParseOpenAiRequest(OpenAiKind kind, absl::string_view body,
                                                 const ModelConfig& model);

// Takes the bytes and type of "data:image/png;base64,...", or a URL, which ParseRequest checks.
// INVALID_ARGUMENT with `path`.
absl::Status ParseImageUrl(const std::string& url, absl::string_view path, v1::Image* image);

}  // namespace tessera
