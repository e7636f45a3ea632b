// From content (text, images, roles) to a Prompt: template, tokens, decoded and prepared images.
//
// Heavy (image decode): run it on a worker thread, never on an RPC thread. Threads: safe,
// immutable. Errors: INVALID_ARGUMENT / RESOURCE_EXHAUSTED whose message starts with the field's
// proto path
// ("content[2].image: ...").
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/chat_template.h"
#include "engine/model_config.h"
#include "engine/request.h"
#include "engine/tokenizer.h"
#include "vision/image.h"

namespace tessera {

struct ImageBytes {
  absl::string_view data;
  absl::string_view mime;
  std::string path;  // field path for errors
};

struct PromptInput {
  // One of: messages (templated), raw (pieces of kText and kImage as given), ids.
  std::vector<ChatMessage> messages;
  std::vector<PromptPiece> raw;
  std::vector<int32_t> ids;
  std::vector<ImageBytes> images;  // in the order of the image parts / image tokens
};

struct PromptLimits {
  ImageLimits image;
  int max_images = 32;
};

class PromptBuilder {
 public:
  PromptBuilder(const ModelConfig* config, const Tokenizer* tokenizer, const PromptLimits& limits);

  absl::StatusOr<Prompt> Build(const PromptInput& input) const;
  // Token counts without decoding pictures: {all, image tokens}.
  absl::StatusOr<std::pair<int, int>> Count(const PromptInput& input) const;

 private:
  absl::StatusOr<Prompt> Layout(const PromptInput& input) const;  // ids and spans, no pixels
  const ModelConfig* config_;
  const Tokenizer* tokenizer_;
  PromptLimits limits_;
};

}  // namespace tessera
