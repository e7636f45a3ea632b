// Chat templates as a named table: vicuna, llama-2, mistral, chatml.
//
// A template turns messages into an ordered list of pieces: text written by the template, text
// written by a user, special tokens and images. Only the template can write special tokens; user
// text is always plain.
// Images stay where the caller's parts put them (llava-hf's own template moves them to the front of
// the turn). As in LLaVA's training data a newline follows each image; it is written by the
// template unless the text after the image begins with one, or the image ends the turn. Source of
// the formats: lm-sys FastChat's vicuna_v1.1 as LLaVA-1.5 uses it (`</s>` after assistant turns,
// system text optional and without a default, as in llava-hf), Meta's Llama 2 reference, Mistral's
// v0.2 instruct format (system text in front of the first user turn), OpenAI's ChatML. Threads:
// immutable, safe.
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
    std::string text;  // when not an image; images are taken in order of appearance
  };
  Role role = Role::kUser;
  std::vector<Part> parts;
};

struct PromptPiece {
  enum class Kind { kText, kSpecial, kImage };
  Kind kind = Kind::kText;
  std::string text;  // kText: adjacent texts are already joined; kSpecial: e.g. "</s>"
};

// Pieces of the whole prompt, ready for generation (the assistant's turn is opened). BOS is not
// included: the tokenizer's setting adds it. INVALID_ARGUMENT ("messages[1].role: ...") for an
// order the template cannot express (empty list, system not first, last turn not the user's, turns
// that do not alternate in llama-2 and mistral), an empty turn, an image outside user turns,
// unknown `name`.
absl::StatusOr<std::vector<PromptPiece>> ApplyChatTemplate(
    absl::string_view name, const std::vector<ChatMessage>& messages);

bool HasChatTemplate(absl::string_view name);
std::vector<std::string> ChatTemplateNames();
// The table's name for a checkpoint's jinja text, by its telling marks; "" if none matches.
std::string RecognizeChatTemplate(absl::string_view jinja);
// The prompt as one string, for people: images as `image_token`.
std::string RenderPieces(const std::vector<PromptPiece>& pieces, absl::string_view image_token);

}  // namespace tessera
