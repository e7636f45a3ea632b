// The engine's events as OpenAI's response objects.
//
// One OpenAiReply makes all objects of one call. It adds to OpenAI's fields: image tokens in
// usage.prompt_tokens_details, and `kv_cache` with what the granted policy stored, in the answer or
// in the last piece of a stream. Threads: one at a time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/request/request.h"
#include "engine/text/tokenizer.h"
#include "nlohmann/json.hpp"
#include "server/http/openai_request.h"

namespace tessera {

// One answer so far.
struct OpenAiChoice {
  std::string text;
  std::vector<TokenLogprob> logprobs;
  bool counts_prompt = true;  // false: an earlier choice has the same prompt
  int64_t text_offset = 0;    // bytes of text in earlier pieces of a stream
  FinishReason reason = FinishReason::kNone;
  bool done = false;
  Usage usage;  // until done: prompt_tokens and, so far, output_tokens
};

class OpenAiReply {
 public:
  using Json = nlohmann::ordered_json;

  // `logprobs`: the request asked for them.
  OpenAiReply(OpenAiKind kind, std::string request_id, std::string model, bool logprobs,
              int64_t created_unix_seconds, const Tokenizer* tokenizer);

  // Returns the whole answer.
  Json Answer(const std::vector<OpenAiChoice>& choices) const;
  // Returns a piece of a stream with choice `index`. `first`: the first piece of this choice.
  // `counts`: adds the choice's usage so far, as vLLM's continuous_usage_stats does.
  Json Piece(const OpenAiChoice& choice, int index, bool first, bool counts) const;
  // Returns the piece that ends a stream: all usage, and no choices.
  Json UsagePiece(const std::vector<OpenAiChoice>& choices) const;

 private:
  Json Head(const char* object) const;
  Json Choice(const OpenAiChoice& choice, int index, Json content) const;
  Json Logprobs(const OpenAiChoice& choice) const;
  void AddUsage(const std::vector<OpenAiChoice>& choices, Json* out) const;

  const OpenAiKind kind_;
  const std::string id_, model_;
  const bool logprobs_;
  const int64_t created_;
  const Tokenizer* const tokenizer_;  // outlives this
};

}  // namespace tessera
