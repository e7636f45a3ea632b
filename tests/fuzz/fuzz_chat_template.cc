// Fuzzes chat templates; each pair of bytes is a role or a part of a conversation. Any order gives
// INVALID_ARGUMENT, or a prompt in which every special token comes from the template.
#include <set>

#include "base/base.h"
#include "engine/text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera;
  using Kind = PromptPiece::Kind;
  static const std::set<std::string> kSpecials = {"<s>", "</s>", "<|im_start|>", "<|im_end|>"};
  std::vector<ChatMessage> messages;
  size_t images = 0;
  for (size_t i = 0; i < size; ++i) {
    const int kind = data[i] % 6;
    if (kind < 3 || messages.empty()) {
      messages.push_back({static_cast<ChatMessage::Role>(kind % 3), {}});
    } else if (kind == 3) {
      messages.back().parts.push_back({true, ""});
      ++images;
    } else {  // the next byte is the length of a text
      const size_t length = i + 1 < size ? std::min<size_t>(data[i + 1] % 16, size - i - 1) : 0;
      messages.back().parts.push_back(
          {false, std::string(reinterpret_cast<const char*>(data) + i + 1, length)});
      i += length;
    }
  }
  for (const std::string& name : ChatTemplateNames()) {
    const absl::StatusOr<std::vector<PromptPiece>> pieces = ApplyChatTemplate(name, messages);
    if (!pieces.ok()) {
      TESSERA_CHECK(pieces.status().code() == absl::StatusCode::kInvalidArgument);
      continue;
    }
    size_t found = 0;
    for (size_t i = 0; i < pieces->size(); ++i) {
      const PromptPiece& piece = (*pieces)[i];
      found += piece.kind == Kind::kImage;
      if (piece.kind == Kind::kSpecial) TESSERA_CHECK(kSpecials.count(piece.text) == 1);
      if (piece.kind == Kind::kText) {
        TESSERA_CHECK(!piece.text.empty());
        TESSERA_CHECK(i == 0 || (*pieces)[i - 1].kind != Kind::kText);
      }
    }
    TESSERA_CHECK(found == images);
  }
  RecognizeChatTemplate(absl::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
