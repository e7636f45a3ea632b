#include <utility>

#include "absl/strings/str_cat.h"
#include "base/base.h"
#include "server/api/error_details.h"
#include "server/api/parsed_request.h"
#include "server/net/https_url.h"

namespace tessera {
namespace {

using Parts = google::protobuf::RepeatedPtrField<v1::ContentPart>;

// Collects the parts of a prompt, in order, and holds them to the limits on images and text.
class PromptCollector {
 public:
  // `fetches`: the method accepts images named by URL, if the server does.
  PromptCollector(const RequestRules& rules, bool fetches) : rules_(rules), fetches_(fetches) {}

  absl::Status CheckUrl(const std::string& url, const std::string& path) const {
    if (rules_.image_urls == nullptr) {
      return FieldError(path,
                        "this server does not fetch images: send the image itself (over HTTP "
                        "as data:image/png;base64,...)");
    }
    if (!fetches_) return FieldError(path, "only Generate fetches images: send the image itself");
    const absl::StatusOr<HttpsUrl> parsed = ParseHttpsUrl(url);
    const absl::Status status = parsed.ok() ? rules_.image_urls->Check(*parsed) : parsed.status();
    return status.ok() ? status : FieldError(path, status.message());
  }

  absl::Status AddImage(v1::Image* image, std::string path) {
    if (!image->url().empty()) {
      if (!image->data().empty()) return FieldError(path, "both data and url");
      RETURN_IF_ERROR(CheckUrl(image->url(), absl::StrCat(path, ".url")));
      out_.urls.push_back({out_.input.images.size(), std::move(*image->mutable_url())});
    } else if (image->data().empty()) {
      return FieldError(path, "an image without data");
    }
    if (static_cast<int>(out_.input.images.size()) >= rules_.max_images) {
      return FieldError(path, absl::StrCat("more than ", rules_.max_images, " images"),
                        reason::kLimitExceeded);
    }
    out_.input.images.push_back(
        {std::move(*image->mutable_data()), std::move(*image->mutable_mime())});
    out_.paths.images.push_back(std::move(path));
    return absl::OkStatus();
  }

  absl::Status AddText(absl::string_view text, absl::string_view path) {
    text_bytes_ += static_cast<int64_t>(text.size());
    if (text_bytes_ > rules_.max_text_bytes) {
      return FieldError(path,
                        absl::StrCat("the text is longer than ", rules_.max_text_bytes, " bytes"),
                        reason::kLimitExceeded);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<ChatMessage::Part>> AddParts(Parts* parts, const std::string& prefix) {
    std::vector<ChatMessage::Part> out;
    for (int i = 0; i < parts->size(); ++i) {
      v1::ContentPart& part = *parts->Mutable(i);
      const std::string path = absl::StrCat(prefix, "content[", i, "]");
      switch (part.part_case()) {
        case v1::ContentPart::kText:
          RETURN_IF_ERROR(AddText(part.text(), absl::StrCat(path, ".text")));
          out.push_back({false, std::move(*part.mutable_text())});
          break;
        case v1::ContentPart::kImage:
          RETURN_IF_ERROR(AddImage(part.mutable_image(), absl::StrCat(path, ".image")));
          out.push_back({true, ""});
          break;
        case v1::ContentPart::PART_NOT_SET:
          return FieldError(path, "neither text nor image");
      }
    }
    return out;
  }

  absl::Status AddMessages(google::protobuf::RepeatedPtrField<v1::Message>* messages) {
    out_.paths.form = PromptPaths::Form::kMessages;
    for (int i = 0; i < messages->size(); ++i) {
      v1::Message& in = *messages->Mutable(i);
      const std::string path = absl::StrCat("messages[", i, "]");
      ChatMessage message;
      switch (in.role()) {
        case v1::Message::ROLE_SYSTEM:
          message.role = ChatMessage::Role::kSystem;
          break;
        case v1::Message::ROLE_USER:
          message.role = ChatMessage::Role::kUser;
          break;
        case v1::Message::ROLE_ASSISTANT:
          message.role = ChatMessage::Role::kAssistant;
          break;
        default:
          return FieldError(absl::StrCat(path, ".role"), "want system, user or assistant");
      }
      ASSIGN_OR_RETURN(message.parts, AddParts(in.mutable_content(), absl::StrCat(path, ".")));
      out_.input.messages.push_back(std::move(message));
    }
    return absl::OkStatus();
  }

  // One user turn, or the raw prompt with adjacent texts joined before tokenising.
  absl::Status AddContent(Parts* content, bool apply_template) {
    ASSIGN_OR_RETURN(std::vector<ChatMessage::Part> parts, AddParts(content, ""));
    if (apply_template) {
      out_.input.messages.push_back({ChatMessage::Role::kUser, std::move(parts)});
      return absl::OkStatus();
    }
    for (ChatMessage::Part& part : parts) {
      const auto kind = part.is_image ? PromptPiece::Kind::kImage : PromptPiece::Kind::kText;
      if (kind == PromptPiece::Kind::kText && !out_.input.raw.empty() &&
          out_.input.raw.back().kind == kind) {
        out_.input.raw.back().text += part.text;
      } else {
        out_.input.raw.push_back({kind, std::move(part.text)});
      }
    }
    return absl::OkStatus();
  }

  // The prompt builder checks the ids themselves.
  absl::Status AddTokenized(v1::TokenizedPrompt* prompt) {
    out_.paths.form = PromptPaths::Form::kTokenized;
    if (prompt->ids().empty()) return FieldError("tokenized.ids", "no tokens");
    out_.input.ids.assign(prompt->ids().begin(), prompt->ids().end());
    for (int i = 0; i < prompt->images_size(); ++i) {
      RETURN_IF_ERROR(
          AddImage(prompt->mutable_images(i), absl::StrCat("tokenized.images[", i, "]")));
    }
    return absl::OkStatus();
  }

  ParsedPrompt Take() { return std::move(out_); }

 private:
  const RequestRules& rules_;
  const bool fetches_;
  ParsedPrompt out_;
  int64_t text_bytes_ = 0;
};

template <class Message>
absl::Status AddContentOrMessages(Message* in, PromptCollector* collector) {
  const bool apply = !in->has_apply_template() || in->apply_template();
  if (!in->content().empty()) return collector->AddContent(in->mutable_content(), apply);
  if (!apply) {
    return FieldError("apply_template", "false needs `content`: messages exist for the template");
  }
  return collector->AddMessages(in->mutable_messages());
}

}  // namespace

absl::StatusOr<ParsedPrompt> ParsePrompt(v1::GenerateRequest* in, const RequestRules& rules) {
  const int given = (in->content().empty() ? 0 : 1) + (in->messages().empty() ? 0 : 1) +
                    (in->has_tokenized() ? 1 : 0);
  if (given != 1) {
    return FieldError("content", given == 0
                                     ? "a request needs one of content, messages and tokenized"
                                     : "only one of content, messages and tokenized may be given");
  }
  PromptCollector collector(rules, /*fetches=*/true);
  if (!in->has_tokenized()) {
    RETURN_IF_ERROR(AddContentOrMessages(in, &collector));
  } else if (in->has_apply_template()) {
    return FieldError("apply_template", "has no meaning for a tokenized prompt");
  } else {
    RETURN_IF_ERROR(collector.AddTokenized(in->mutable_tokenized()));
  }
  return collector.Take();
}

absl::StatusOr<ParsedPrompt> ParsePrompt(v1::CountTokensRequest in, const RequestRules& rules) {
  RETURN_IF_ERROR(CheckNoUnknownFields(in));
  if (in.content().empty() == in.messages().empty()) {
    return FieldError("content", "want either content or messages");
  }
  PromptCollector collector(rules, /*fetches=*/false);
  RETURN_IF_ERROR(AddContentOrMessages(&in, &collector));
  return collector.Take();
}

absl::StatusOr<ParsedPrompt> ParsePrompt(v1::ApplyTemplateRequest in, const RequestRules& rules) {
  RETURN_IF_ERROR(CheckNoUnknownFields(in));
  if (in.messages().empty()) return FieldError("messages", "no messages");
  PromptCollector collector(rules, /*fetches=*/false);
  RETURN_IF_ERROR(collector.AddMessages(in.mutable_messages()));
  return collector.Take();
}

}  // namespace tessera
