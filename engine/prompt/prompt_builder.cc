#include "engine/prompt/prompt_builder.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "engine/request/field_error.h"
#include "vision/codecs/decode.h"
#include "vision/processor/processor.h"

namespace tessera {

using Kind = PromptPiece::Kind;

namespace {

absl::Status PromptError(absl::string_view message) {
  return RequestFieldError({.field = RequestField::kPrompt}, message);
}

absl::Status OverLimit(absl::string_view message) {
  return RequestFieldError({.field = RequestField::kPrompt, .over_limit = true}, message);
}

// Says that image `index` of the prompt is the one with `error`.
absl::Status ImageError(size_t index, const absl::Status& error) {
  return RequestFieldError({.field = RequestField::kImage, .index = static_cast<int>(index)},
                           error.message(), error.code());
}

}  // namespace

struct PromptBuilder::Layout {
  std::vector<int32_t> ids;
  std::vector<size_t> image_at;  // ascending indices into ids: one image token each
};

PromptBuilder::PromptBuilder(const ModelConfig* config, const Tokenizer* tokenizer,
                             const PromptLimits& limits)
    : config_(config),
      tokenizer_(tokenizer),
      image_limits_(limits.image),
      context_tokens_(limits.context_tokens > 0 ? limits.context_tokens
                                                : config->text.max_positions) {}

absl::StatusOr<PromptBuilder::Layout> PromptBuilder::LayOutPieces(
    const std::vector<PromptPiece>& pieces) const {
  Layout layout;
  std::string text;   // of the pieces since the last special token or image
  bool first = true;  // nothing but BOS stands before `text`
  bool empty = true;
  if (tokenizer_->add_bos()) layout.ids.push_back(tokenizer_->bos());
  const auto flush = [&] {
    if (text.empty()) return;
    const std::vector<int32_t> ids = tokenizer_->Encode(text, first);
    layout.ids.insert(layout.ids.end(), ids.begin(), ids.end());
    text.clear();
    first = false;
    empty = false;
  };
  for (const PromptPiece& piece : pieces) {
    if (piece.kind == Kind::kText) {
      text += piece.text;
      continue;
    }
    flush();
    first = empty = false;
    if (piece.kind == Kind::kImage) {
      layout.image_at.push_back(layout.ids.size());
      layout.ids.push_back(config_->image_token);
      continue;
    }
    const int32_t id = tokenizer_->IdOf(piece.text);
    if (id < 0) {
      return PromptError(absl::StrCat("the chat template needs the token ", piece.text,
                                      ", which the tokenizer lacks"));
    }
    layout.ids.push_back(id);
  }
  flush();
  if (empty) return PromptError("empty prompt");
  return layout;
}

absl::StatusOr<PromptBuilder::Layout> PromptBuilder::LayOutIds(
    const std::vector<int32_t>& ids) const {
  Layout layout;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= config_->text.vocab) {
      return RequestFieldError(
          {.field = RequestField::kPromptToken, .index = static_cast<int>(i)},
          absl::StrCat(ids[i], " is outside the vocabulary of ", config_->text.vocab));
    }
    if (ids[i] == config_->image_token) layout.image_at.push_back(i);
  }
  layout.ids = ids;
  return layout;
}

absl::StatusOr<PromptBuilder::Layout> PromptBuilder::LayOut(const PromptInput& input,
                                                            int64_t most) const {
  const int given = !input.messages.empty() + !input.raw.empty() + !input.ids.empty();
  if (given == 0) return PromptError("empty prompt");
  if (given > 1) return PromptError("more than one of messages, raw pieces and token ids");
  Layout layout;
  if (!input.ids.empty()) {
    ASSIGN_OR_RETURN(layout, LayOutIds(input.ids));
  } else if (!input.raw.empty()) {
    ASSIGN_OR_RETURN(layout, LayOutPieces(input.raw));
  } else {
    ASSIGN_OR_RETURN(const std::vector<PromptPiece> pieces,
                     ApplyChatTemplate(config_->chat_template, input.messages));
    ASSIGN_OR_RETURN(layout, LayOutPieces(pieces));
  }
  const int64_t places = static_cast<int64_t>(layout.image_at.size());
  if (layout.image_at.size() != input.images.size()) {
    return PromptError(absl::StrCat(places, " image tokens for ", input.images.size(), " images"));
  }
  const int64_t tokens =
      static_cast<int64_t>(layout.ids.size()) + places * (config_->tokens_per_image() - 1);
  if (tokens > most) {
    return OverLimit(absl::StrCat("the prompt has ", tokens, " tokens (",
                                  places * config_->tokens_per_image(), " of images), the context ",
                                  context_tokens_));
  }
  return layout;
}

absl::StatusOr<std::pair<int, int>> PromptBuilder::Count(const PromptInput& input) const {
  ASSIGN_OR_RETURN(const Layout layout, LayOut(input, context_tokens_));
  for (size_t i = 0; i < input.images.size(); ++i) {
    const ImageBytes& source = input.images[i];
    const absl::Status header = ReadImageSize(source.data, source.mime, image_limits_).status();
    if (!header.ok()) return ImageError(i, header);
  }
  const int images = static_cast<int>(layout.image_at.size());
  const int image_tokens = images * config_->tokens_per_image();
  return std::make_pair(static_cast<int>(layout.ids.size()) - images + image_tokens, image_tokens);
}

absl::StatusOr<Prompt> PromptBuilder::Build(const PromptInput& input) const {
  ASSIGN_OR_RETURN(const Layout layout, LayOut(input, context_tokens_ - 1));
  Prompt prompt;
  size_t next_image = 0;
  for (size_t i = 0; i < layout.ids.size(); ++i) {
    if (next_image == layout.image_at.size() || layout.image_at[next_image] != i) {
      prompt.ids.push_back(layout.ids[i]);
      continue;
    }
    const size_t index = next_image++;
    const ImageBytes& source = input.images[index];
    absl::StatusOr<Image> image = DecodeImage(source.data, source.mime, image_limits_);
    if (!image.ok()) return ImageError(index, image.status());
    absl::StatusOr<PreparedImage> prepared =
        PrepareImage(*image, config_->processor, image_limits_);
    if (!prepared.ok()) return ImageError(index, prepared.status());
    TESSERA_CHECK(prepared->side == config_->vision.image_size);
    prompt.images.push_back({static_cast<int32_t>(prompt.ids.size()),
                             std::make_shared<const PreparedImage>(*std::move(prepared))});
    prompt.ids.insert(prompt.ids.end(), static_cast<size_t>(config_->tokens_per_image()),
                      config_->image_token);
  }
  prompt.image_tokens = static_cast<int32_t>(layout.image_at.size()) * config_->tokens_per_image();
  return prompt;
}

}  // namespace tessera
