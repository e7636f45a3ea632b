// The engine's events as protobuf messages. Threads: safe.
#pragma once

#include <cstdint>
#include <string>

#include "engine/request/explanation.h"
#include "engine/request/request.h"
#include "engine/text/tokenizer.h"
#include "tessera/v1/inference.pb.h"
#include "vision/processor/processor.h"

namespace tessera {

// The parts of a reply that the client asked for in addition to the text.
struct ReplyOptions {
  bool token_ids = false;
  bool logprobs = false;
};

// Fills `out`. Returns false if the event has neither text nor tokens.
bool ConvertDelta(const Event& event, const ReplyOptions& options, const Tokenizer& tokenizer,
                  v1::TokenDelta* out);
void ConvertFinished(const Event& event, v1::Finished* out);
void ConvertExplanation(const Explanation& in, const ProcessorConfig& processor,
                        const Tokenizer& tokenizer, v1::Explanation* out);

// Returns a token's text, or the vocabulary's piece if the bytes alone are not UTF-8.
std::string TokenText(const Tokenizer& tokenizer, int32_t id);

}  // namespace tessera
