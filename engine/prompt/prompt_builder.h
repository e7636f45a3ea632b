// Builds a Prompt from text, images and roles: template, tokens, decoded and prepared images.
//
// Adjacent text pieces are joined before they are tokenized. Each image becomes tokens_per_image()
// image tokens. In `ids`, each image token stands for the next image. BOS is added as the
// tokenizer's setting says, but never to `ids`. A prompt over the model's context is rejected
// before any image is decoded.
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
  absl::string_view data;
  absl::string_view mime;  // may be empty
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
  int max_images = 32;
  int64_t max_text_bytes = 4 << 20;  // of all text together
};

class PromptBuilder {
 public:
  PromptBuilder(const ModelConfig* config, const Tokenizer* tokenizer, const PromptLimits& limits);

  absl::StatusOr<Prompt> Build(const PromptInput& input) const;
  // Token counts, {all, image tokens}; of pictures only the headers are read and checked.
  absl::StatusOr<std::pair<int, int>> Count(const PromptInput& input) const;

 private:
  struct Layout;  // ids and where the images go, before expansion
  absl::StatusOr<Layout> LayOut(const PromptInput& input) const;
  absl::StatusOr<Layout> LayOutPieces(const std::vector<PromptPiece>& pieces) const;
  absl::StatusOr<Layout> LayOutIds(const std::vector<int32_t>& ids) const;

  const ModelConfig* config_;  // both outlive this
  const Tokenizer* tokenizer_;
  PromptLimits limits_;
};

}  // namespace tessera
