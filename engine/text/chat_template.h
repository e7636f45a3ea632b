// Chat templates, in a table by name: vicuna, llama-2, mistral, chatml.
//
// A template turns messages into an ordered list of pieces: text, special tokens and images. Only
// the template writes special tokens. A user's text is always plain text.
//
// Images stay where the caller puts them; llava-hf's own template moves them to the front of the
// turn. As in LLaVA's training data, a newline follows each image. The template writes it unless
// the next text begins with a newline or the image ends the turn.
//
// Sources of the formats:
// - vicuna: lm-sys FastChat's vicuna_v1.1 as LLaVA-1.5 uses it. `</s>` follows assistant turns, and
//   there is no default system text, as in llava-hf.
// - llama-2: Meta's reference.
// - mistral: the v0.2 instruct format, with the system text in front of the first user turn.
// - chatml: OpenAI's ChatML.
// Threads: safe; immutable.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

struct ChatMessage {
  enum class Role { kSystem, kUser, kAssistant };
  struct Part {
    bool is_image = false;
    std::string text;  // of a part that is not an image; images are matched in order
  };
  Role role = Role::kUser;
  std::vector<Part> parts;
};

struct PromptPiece {
  enum class Kind { kText, kSpecial, kImage };
  Kind kind = Kind::kText;
  std::string text;  // kText: adjacent texts are one piece; kSpecial: the token, e.g. "</s>"
};

// Pieces of the whole prompt, ready for generation (the assistant's turn is opened). BOS is not
// included: the tokenizer's setting adds it. INVALID_ARGUMENT with its field (field_error.h) for an
// order the template cannot express (empty list, system not first, last turn not the user's, turns
// that do not alternate in llama-2 and mistral), an empty turn, an image outside user turns, or an
// unknown `name`.
absl::StatusOr<std::vector<PromptPiece>> ApplyChatTemplate(
    absl::string_view name, const std::vector<ChatMessage>& messages);

bool HasChatTemplate(absl::string_view name);
std::vector<std::string> ChatTemplateNames();
// Returns the name of the template that a checkpoint's Jinja text expresses, recognized by its
// markers; "" if it has none of them.
std::string RecognizeChatTemplate(absl::string_view jinja);
// Returns the prompt as one string for people to read, with `image_token` for each image.
std::string RenderPieces(const std::vector<PromptPiece>& pieces, absl::string_view image_token);

}  // namespace tessera
