// Builds a Prompt from text, images and roles: template, tokens, decoded and prepared images.
//
// Adjacent text pieces are joined before they are tokenized. Each image becomes tokens_per_image()
// image tokens. In `ids`, each image token stands for the next image. BOS is added as the
// tokenizer's setting says, but never to `ids`. A prompt that leaves no room for an answer is
// rejected before any image is decoded.
// Decoding takes milliseconds: call Build on a worker thread. Threads: safe, immutable.
// Errors: INVALID_ARGUMENT and RESOURCE_EXHAUSTED with their field (field_error.h).
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model_config.h"
#include "engine/request/request.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "vision/codecs/image.h"

namespace tessera {

struct ImageBytes {
  std::string data;  // JPEG, PNG or WebP
  std::string mime;  // may be empty
};

struct PromptInput {
  // Exactly one of: messages (templated), raw (pieces as given; kSpecial is for trusted callers
  // only), ids.
  std::vector<ChatMessage> messages;
  std::vector<PromptPiece> raw;
  std::vector<int32_t> ids;
  std::vector<ImageBytes> images;  // in the order of the image parts / image tokens
};

struct PromptLimits {
  ImageLimits image;
  int context_tokens = 0;  // of prompt and answer together; 0: the model's
};

class PromptBuilder {
 public:
  PromptBuilder(const ModelConfig* config, const Tokenizer* tokenizer, const PromptLimits& limits);

  absl::StatusOr<Prompt> Build(const PromptInput& input) const;
  // Token counts, {all, image tokens}; of pictures only the headers are read and checked.
  absl::StatusOr<std::pair<int, int>> Count(const PromptInput& input) const;

 private:
  struct Layout;  // ids and where the images go, before expansion
  // `most`: the number of tokens that the expanded prompt may have.
  absl::StatusOr<Layout> LayOut(const PromptInput& input, int64_t most) const;
  absl::StatusOr<Layout> LayOutPieces(const std::vector<PromptPiece>& pieces) const;
  absl::StatusOr<Layout> LayOutIds(const std::vector<int32_t>& ids) const;

  const ModelConfig* config_;  // both outlive this
  const Tokenizer* tokenizer_;
  const ImageLimits image_limits_;
  const int context_tokens_;
};

}  // namespace tessera
