#include "engine/text/chat_template.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/base.h"
#include "engine/request/field_error.h"

namespace tessera {
namespace {

using Role = ChatMessage::Role;
using Part = ChatMessage::Part;

// Appends pieces and joins adjacent texts.
class Writer {
 public:
  Writer& Text(absl::string_view text) {
    if (text.empty()) return *this;
    if (pieces_.empty() || pieces_.back().kind != PromptPiece::Kind::kText) {
      pieces_.push_back({PromptPiece::Kind::kText, ""});
    }
    pieces_.back().text.append(text.data(), text.size());
    return *this;
  }
  Writer& Special(absl::string_view token) {
    pieces_.push_back({PromptPiece::Kind::kSpecial, std::string(token)});
    return *this;
  }
  Writer& Parts(const std::vector<Part>& parts) {
    bool after_image = false;
    for (const Part& part : parts) {
      if (after_image && (part.is_image || !absl::StartsWith(part.text, "\n"))) Text("\n");
      if (part.is_image) pieces_.push_back({PromptPiece::Kind::kImage, ""});
      if (!part.is_image) Text(part.text);
      after_image = part.is_image;
    }
    return *this;
  }
  std::vector<PromptPiece> Take() { return std::move(pieces_); }

 private:
  std::vector<PromptPiece> pieces_;
};

// Removes trailing and, if `front`, leading white space. REQUIRES: `parts` is not empty.
std::vector<Part> Stripped(std::vector<Part> parts, bool front) {
  if (front && !parts.front().is_image) {
    parts.front().text = std::string(absl::StripLeadingAsciiWhitespace(parts.front().text));
  }
  if (!parts.back().is_image) {
    parts.back().text = std::string(absl::StripTrailingAsciiWhitespace(parts.back().text));
  }
  return parts;
}

void WriteVicuna(const std::vector<ChatMessage>& messages, Writer* out) {
  for (const ChatMessage& message : messages) {
    switch (message.role) {
      case Role::kSystem:
        out->Parts(message.parts).Text(" ");
        break;
      case Role::kUser:
        out->Text("USER: ").Parts(message.parts).Text(" ");
        break;
      case Role::kAssistant:
        out->Text("ASSISTANT: ").Parts(message.parts).Special("</s>");
        break;
    }
  }
  out->Text("ASSISTANT:");
}

void WriteLlama2(const std::vector<ChatMessage>& messages, Writer* out) {
  bool open = false;   // the system text has opened the first instruction
  bool later = false;  // an assistant turn precedes this turn
  for (const ChatMessage& message : messages) {
    switch (message.role) {
      case Role::kSystem:
        out->Text("[INST] <<SYS>>\n").Parts(message.parts).Text("\n<</SYS>>\n\n");
        open = true;
        break;
      case Role::kUser:
        if (later) out->Special("<s>");
        if (!open) out->Text("[INST] ");
        out->Parts(Stripped(message.parts, !open)).Text(" [/INST]");
        open = false;
        break;
      case Role::kAssistant:
        out->Text(" ").Parts(Stripped(message.parts, true)).Text(" ").Special("</s>");
        later = true;
        break;
    }
  }
}

void WriteMistral(const std::vector<ChatMessage>& messages, Writer* out) {
  bool open = false;
  for (const ChatMessage& message : messages) {
    switch (message.role) {
      case Role::kSystem:
        out->Text("[INST] ").Parts(message.parts).Text("\n\n");
        open = true;
        break;
      case Role::kUser:
        if (!open) out->Text("[INST] ");
        out->Parts(message.parts).Text(" [/INST]");
        open = false;
        break;
      case Role::kAssistant:
        out->Text(" ").Parts(message.parts).Special("</s>");
        break;
    }
  }
}

void WriteChatMl(const std::vector<ChatMessage>& messages, Writer* out) {
  for (const ChatMessage& message : messages) {
    const char* role = message.role == Role::kSystem ? "system\n"
                       : message.role == Role::kUser ? "user\n"
                                                     : "assistant\n";
    out->Special("<|im_start|>").Text(role).Parts(message.parts);
    out->Special("<|im_end|>").Text("\n");
  }
  out->Special("<|im_start|>").Text("assistant\n");
}

struct Template {
  const char* name;
  bool alternates;  // after the system turn: user, assistant, user, ...
  void (*write)(const std::vector<ChatMessage>& messages, Writer* out);
};

constexpr Template kTemplates[] = {
    {"vicuna", false, WriteVicuna},
    {"llama-2", true, WriteLlama2},
    {"mistral", true, WriteMistral},
    {"chatml", false, WriteChatMl},
};

const Template* FindTemplate(absl::string_view name) {
  for (const Template& entry : kTemplates) {
    if (name == entry.name) return &entry;
  }
  return nullptr;
}

// Drops empty texts, so that "after an image" means after the image that can be seen.
std::vector<ChatMessage> WithoutEmptyParts(const std::vector<ChatMessage>& messages) {
  std::vector<ChatMessage> out;
  for (const ChatMessage& message : messages) {
    out.push_back({message.role, {}});
    for (const Part& part : message.parts) {
      if (part.is_image || !part.text.empty()) out.back().parts.push_back(part);
    }
  }
  return out;
}

absl::Status Check(const Template& format, const std::vector<ChatMessage>& messages) {
  const auto bad_role = [](size_t i, absl::string_view why) {
    return RequestFieldError({.field = RequestField::kMessageRole, .index = static_cast<int>(i)},
                             why);
  };
  if (messages.empty()) return RequestFieldError({.field = RequestField::kPrompt}, "empty");
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (message.role == Role::kSystem && i > 0) {
      return bad_role(i, "a system message must be the first");
    }
    bool empty = true;
    for (size_t j = 0; j < message.parts.size(); ++j) {
      const Part& part = message.parts[j];
      if (part.is_image && message.role != Role::kUser) {
        return RequestFieldError({.field = RequestField::kMessageImage,
                                  .index = static_cast<int>(i),
                                  .part = static_cast<int>(j)},
                                 "images belong in user turns");
      }
      empty &= !part.is_image && part.text.empty();
    }
    if (empty) {
      return RequestFieldError({.field = RequestField::kMessage, .index = static_cast<int>(i)},
                               "empty");
    }
    const size_t turn = messages[0].role == Role::kSystem ? i - 1 : i;
    const Role expected = turn % 2 == 0 ? Role::kUser : Role::kAssistant;
    if (format.alternates && message.role != Role::kSystem && message.role != expected) {
      return bad_role(
          i, absl::StrCat("user and assistant turns must alternate in template ", format.name));
    }
  }
  if (messages.back().role != Role::kUser) {
    return bad_role(messages.size() - 1, "the last turn must be the user's");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<PromptPiece>> ApplyChatTemplate(
    absl::string_view name, const std::vector<ChatMessage>& messages) {
  const Template* format = FindTemplate(name);
  if (format == nullptr) {
    return RequestFieldError({.field = RequestField::kPrompt},
                             absl::StrCat("no chat template \"", name,
                                          "\" (known: ", absl::StrJoin(ChatTemplateNames(), ", "),
                                          "); send a raw prompt instead"));
  }
  RETURN_IF_ERROR(Check(*format, messages));
  Writer out;
  format->write(WithoutEmptyParts(messages), &out);
  return out.Take();
}

bool HasChatTemplate(absl::string_view name) { return FindTemplate(name) != nullptr; }

std::vector<std::string> ChatTemplateNames() {
  std::vector<std::string> names;
  for (const Template& entry : kTemplates) names.push_back(entry.name);
  return names;
}

std::string RecognizeChatTemplate(absl::string_view jinja) {
  // The most specific marker comes first. LLaVA-1.6-Mistral's text contains Llama 2's <<SYS>> too,
  // but ends its turns with a misspelled "<\s>".
  struct Mark {
    const char* text;
    const char* name;
  };
  static constexpr Mark kMarks[] = {{"<|im_start|>", "chatml"},
                                    {"<\\s>", "mistral"},
                                    {"<<SYS>>", "llama-2"},
                                    {"[INST]", "mistral"},
                                    {"ASSISTANT:", "vicuna"}};
  for (const Mark& mark : kMarks) {
    if (absl::StrContains(jinja, mark.text)) return mark.name;
  }
  return "";
}

std::string RenderPieces(const std::vector<PromptPiece>& pieces, absl::string_view image_token) {
  std::string text;
  for (const PromptPiece& piece : pieces) {
    if (piece.kind == PromptPiece::Kind::kImage) {
      text.append(image_token.data(), image_token.size());
    } else {
      text += piece.text;
    }
  }
  return text;
}

}  // namespace tessera
