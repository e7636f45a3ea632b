#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/unknown_field_set.h"
#include "server/convert.h"
#include "server/error_details.h"

namespace tessera {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;
constexpr size_t kMaxPolicyBytes = 256;
constexpr size_t kMaxSaltBytes = 256;
constexpr int kMaxTopLogprobs = 20;
constexpr int kMaxMessageParts = 100'000;

using Parts = google::protobuf::RepeatedPtrField<v1::ContentPart>;

// Collects the parts of a prompt, in order, and holds them to the limits on images and text.
class PromptCollector {
 public:
  explicit PromptCollector(const ConvertOptions& options) : options_(options) {}

  absl::Status AddImage(const v1::Image& image, std::string path) {
    if (image.data().empty()) return FieldError(path, "an image without data");
    if (static_cast<int>(input_.images.size()) >= options_.max_images) {
      return FieldError(path, absl::StrCat("more than ", options_.max_images, " images"),
                        reason::kLimitExceeded);
    }
    input_.images.push_back({image.data(), image.mime(), std::move(path)});
    return absl::OkStatus();
  }

  absl::Status AddText(absl::string_view text, absl::string_view path) {
    text_bytes_ += static_cast<int64_t>(text.size());
    if (text_bytes_ > options_.max_text_bytes) {
      return FieldError(path,
                        absl::StrCat("the text is longer than ", options_.max_text_bytes, " bytes"),
                        reason::kLimitExceeded);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<ChatMessage::Part>> AddParts(const Parts& parts,
                                                          const std::string& prefix) {
    std::vector<ChatMessage::Part> out;
    for (int i = 0; i < parts.size(); ++i) {
      const std::string path = absl::StrCat(prefix, "content[", i, "]");
      switch (parts[i].part_case()) {
        case v1::ContentPart::kText:
          RETURN_IF_ERROR(AddText(parts[i].text(), absl::StrCat(path, ".text")));
          out.push_back({false, parts[i].text()});
          break;
        case v1::ContentPart::kImage:
          RETURN_IF_ERROR(AddImage(parts[i].image(), absl::StrCat(path, ".image")));
          out.push_back({true, ""});
          break;
        case v1::ContentPart::PART_NOT_SET:
          return FieldError(path, "neither text nor image");
      }
    }
    return out;
  }

  absl::Status AddMessages(const google::protobuf::RepeatedPtrField<v1::Message>& messages) {
    for (int i = 0; i < messages.size(); ++i) {
      const std::string path = absl::StrCat("messages[", i, "]");
      ChatMessage message;
      switch (messages[i].role()) {
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
      ASSIGN_OR_RETURN(message.parts, AddParts(messages[i].content(), absl::StrCat(path, ".")));
      input_.messages.push_back(std::move(message));
    }
    return absl::OkStatus();
  }

  // One user turn, or the raw prompt with adjacent texts joined before tokenising.
  absl::Status AddContent(const Parts& content, bool apply_template) {
    ASSIGN_OR_RETURN(std::vector<ChatMessage::Part> parts, AddParts(content, ""));
    if (apply_template) {
      input_.messages.push_back({ChatMessage::Role::kUser, std::move(parts)});
      return absl::OkStatus();
    }
    for (ChatMessage::Part& part : parts) {
      const auto kind = part.is_image ? PromptPiece::Kind::kImage : PromptPiece::Kind::kText;
      if (kind == PromptPiece::Kind::kText && !input_.raw.empty() &&
          input_.raw.back().kind == kind) {
        input_.raw.back().text += part.text;
      } else {
        input_.raw.push_back({kind, std::move(part.text)});
      }
    }
    return absl::OkStatus();
  }

  absl::Status AddTokenized(const v1::TokenizedPrompt& prompt) {
    if (prompt.ids().empty()) return FieldError("tokenized.ids", "no tokens");
    if (prompt.ids_size() > options_.context_tokens) {
      return FieldError("tokenized.ids",
                        absl::StrCat(prompt.ids_size(), " tokens exceed the context of ",
                                     options_.context_tokens),
                        reason::kLimitExceeded);
    }
    input_.ids.assign(prompt.ids().begin(), prompt.ids().end());
    for (size_t i = 0; i < input_.ids.size(); ++i) {
      if (input_.ids[i] < 0 || input_.ids[i] >= options_.model->text.vocab) {
        return FieldError(absl::StrCat("tokenized.ids[", i, "]"),
                          absl::StrCat(input_.ids[i], " is outside the vocabulary of ",
                                       options_.model->text.vocab));
      }
    }
    for (int i = 0; i < prompt.images_size(); ++i) {
      RETURN_IF_ERROR(AddImage(prompt.images(i), absl::StrCat("tokenized.images[", i, "]")));
    }
    return absl::OkStatus();
  }

  PromptInput Take() { return std::move(input_); }

 private:
  const ConvertOptions& options_;
  PromptInput input_;
  int64_t text_bytes_ = 0;
};

template <class Message>
absl::Status AddContentOrMessages(const Message& in, PromptCollector* collector) {
  const bool apply = !in.has_apply_template() || in.apply_template();
  if (!in.content().empty()) return collector->AddContent(in.content(), apply);
  if (!apply) {
    return FieldError("apply_template", "false needs `content`: messages exist for the template");
  }
  return collector->AddMessages(in.messages());
}

absl::StatusOr<std::shared_ptr<const Policy>> ConvertPolicy(const std::string& text,
                                                            const ConvertOptions& options) {
  if (text.empty()) return options.default_policy;
  if (text.size() > kMaxPolicyBytes) {
    return FieldError("kv_policy.text", absl::StrCat("longer than ", kMaxPolicyBytes, " bytes"));
  }
  auto policy = ParsePolicy(text);
  if (!policy.ok()) return FieldError("kv_policy.text", policy.status().message());
  const std::vector<std::string>& allowed = options.allowed_policies;
  for (const std::string& name : PolicyNames(text)) {
    if (!allowed.empty() && std::find(allowed.begin(), allowed.end(), name) == allowed.end()) {
      return ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                             absl::StrCat("kv_policy.text: this server does not allow ", name,
                                          "; it allows: ", absl::StrJoin(allowed, ", ")),
                             reason::kPolicyNotAllowed);
    }
  }
  return *std::move(policy);
}

SamplingParams ConvertSampling(const v1::Sampling& in, const GenerationDefaults& defaults) {
  SamplingParams out;
  out.temperature = in.has_temperature() ? in.temperature() : defaults.temperature;
  out.top_k = in.has_top_k() ? in.top_k() : defaults.top_k;
  out.top_p = in.has_top_p() ? in.top_p() : defaults.top_p;
  out.min_p = in.min_p();
  out.repetition_penalty =
      in.has_repetition_penalty() ? in.repetition_penalty() : defaults.repetition_penalty;
  out.presence_penalty = in.presence_penalty();
  out.frequency_penalty = in.frequency_penalty();
  out.has_seed = in.has_seed();
  out.seed = in.seed();
  return out;
}

absl::Status ConvertStopping(const v1::GenerateRequest& in, const ModelConfig& model,
                             StopParams* out) {
  const v1::Stopping& stopping = in.stopping();
  if (stopping.has_max_tokens() && stopping.max_tokens() <= 0) {
    return FieldError("stopping.max_tokens", "want at least 1");
  }
  out->max_tokens = stopping.max_tokens();
  out->min_tokens = stopping.min_tokens();
  out->strings.assign(stopping.stop().begin(), stopping.stop().end());
  out->token_ids.assign(stopping.stop_token_ids().begin(), stopping.stop_token_ids().end());
  out->ignore_eos = stopping.ignore_eos();
  out->include_stop = in.response().include_stop();
  for (size_t i = 0; i < out->token_ids.size(); ++i) {
    if (out->token_ids[i] < 0 || out->token_ids[i] >= model.text.vocab) {
      return FieldError(
          absl::StrCat("stopping.stop_token_ids[", i, "]"),
          absl::StrCat(out->token_ids[i], " is outside the vocabulary of ", model.text.vocab));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int> ConvertLogprobs(const v1::ResponseOptions& in) {
  if (in.top_logprobs() < 0 || in.top_logprobs() > kMaxTopLogprobs) {
    return FieldError("response.top_logprobs", absl::StrCat("want 0 to ", kMaxTopLogprobs));
  }
  if (in.has_logprobs() && !in.logprobs() && in.top_logprobs() > 0) {
    return FieldError("response.top_logprobs", "asks for candidates, but logprobs is false");
  }
  return in.logprobs() || in.has_top_logprobs() ? in.top_logprobs() : -1;
}

// Recurses as deep as the schema, which has no cycles.
absl::Status VisitFields(const google::protobuf::Message& message, const std::string& path,
                         int* visited) {
  if (++*visited > kMaxMessageParts) {
    return FieldError(path, absl::StrCat("a request of more than ", kMaxMessageParts, " parts"),
                      reason::kLimitExceeded);
  }
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  const google::protobuf::UnknownFieldSet& unknown = reflection.GetUnknownFields(message);
  if (!unknown.empty()) {
    return FieldError(path.empty() ? "request" : path,
                      absl::StrCat("field number ", unknown.field(0).number(),
                                   " is not known to this server: is the client newer?"),
                      reason::kUnknownField);
  }
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const google::protobuf::FieldDescriptor* field : fields) {
    if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) continue;
    const std::string name = absl::StrCat(path, path.empty() ? "" : ".", field->name());
    if (!field->is_repeated()) {
      RETURN_IF_ERROR(VisitFields(reflection.GetMessage(message, field), name, visited));
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
      RETURN_IF_ERROR(VisitFields(reflection.GetRepeatedMessage(message, field, i),
                                  absl::StrCat(name, "[", i, "]"), visited));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Request> ConvertRequest(const v1::GenerateRequest& in,
                                       const ConvertOptions& options) {
  RETURN_IF_ERROR(CheckNoUnknownFields(in));
  Request out;
  if (!in.request_id().empty()) RETURN_IF_ERROR(CheckRequestId("request_id", in.request_id()));
  out.id = in.request_id();
  if (!in.model().empty() && in.model() != options.model->name) {
    return ErrorWithReason(absl::StatusCode::kNotFound,
                           absl::StrCat("model: this server serves ", options.model->name, " only"),
                           reason::kModelNotFound);
  }
  out.sampling = ConvertSampling(in.sampling(), options.model->generation);
  RETURN_IF_ERROR(ConvertStopping(in, *options.model, &out.stop));
  StopParams checked = out.stop;
  if (checked.max_tokens == 0) checked.max_tokens = std::max(1, checked.min_tokens);
  RETURN_IF_ERROR(Validate(out.sampling, checked));
  ASSIGN_OR_RETURN(out.top_logprobs, ConvertLogprobs(in.response()));
  ASSIGN_OR_RETURN(out.policy, ConvertPolicy(in.kv_policy().text(), options));
  if (in.cache().salt().size() > kMaxSaltBytes) {
    return FieldError("cache.salt", absl::StrCat("longer than ", kMaxSaltBytes, " bytes"));
  }
  out.bypass_prefix = in.cache().bypass_prefix();
  out.salt = in.cache().salt();
  out.priority = in.priority();
  return out;
}

absl::StatusOr<PromptInput> ConvertPrompt(const v1::GenerateRequest& in,
                                          const ConvertOptions& options) {
  const int given = (in.content().empty() ? 0 : 1) + (in.messages().empty() ? 0 : 1) +
                    (in.has_tokenized() ? 1 : 0);
  if (given != 1) {
    return FieldError("content", given == 0
                                     ? "a request needs one of content, messages and tokenized"
                                     : "only one of content, messages and tokenized may be given");
  }
  PromptCollector collector(options);
  if (!in.has_tokenized()) {
    RETURN_IF_ERROR(AddContentOrMessages(in, &collector));
  } else if (in.has_apply_template()) {
    return FieldError("apply_template", "has no meaning for a tokenized prompt");
  } else {
    RETURN_IF_ERROR(collector.AddTokenized(in.tokenized()));
  }
  return collector.Take();
}

absl::StatusOr<PromptInput> ConvertPrompt(const v1::CountTokensRequest& in,
                                          const ConvertOptions& options) {
  RETURN_IF_ERROR(CheckNoUnknownFields(in));
  if (in.content().empty() == in.messages().empty()) {
    return FieldError("content", "want either content or messages");
  }
  PromptCollector collector(options);
  RETURN_IF_ERROR(AddContentOrMessages(in, &collector));
  return collector.Take();
}

absl::StatusOr<PromptInput> ConvertPrompt(const v1::ApplyTemplateRequest& in,
                                          const ConvertOptions& options) {
  RETURN_IF_ERROR(CheckNoUnknownFields(in));
  if (in.messages().empty()) return FieldError("messages", "no messages");
  PromptCollector collector(options);
  RETURN_IF_ERROR(collector.AddMessages(in.messages()));
  return collector.Take();
}

absl::Status WithClientPath(const v1::GenerateRequest& in, const absl::Status& status) {
  const std::string path = LeadingFieldPath(status.message());
  if (status.ok() || in.content().empty() || !absl::StartsWith(path, "messages")) return status;
  return absl::Status(status.code(), absl::StrCat("content", status.message().substr(path.size())));
}

absl::Status SetMaxTokens(const v1::GenerateRequest& in, int context_tokens, int default_max_tokens,
                          Request* request) {
  const int prompt = static_cast<int>(request->prompt.ids.size());
  const char* prompt_path = in.has_tokenized()      ? "tokenized.ids"
                            : in.messages().empty() ? "content"
                                                    : "messages";
  const int left = context_tokens - prompt;
  if (left < 1) {
    return FieldError(prompt_path,
                      absl::StrCat("the prompt has ", prompt, " tokens (",
                                   request->prompt.image_tokens, " of images); the context of ",
                                   context_tokens, " leaves no room for an answer"),
                      reason::kLimitExceeded);
  }
  if (in.stopping().has_max_tokens()) {
    if (in.stopping().max_tokens() > left) {
      return FieldError("stopping.max_tokens",
                        absl::StrCat("the prompt has ", prompt, " tokens; the context of ",
                                     context_tokens, " leaves ", left),
                        reason::kLimitExceeded);
    }
  } else {
    request->stop.max_tokens = std::min(left, default_max_tokens);
  }
  if (request->stop.min_tokens > request->stop.max_tokens) {
    return FieldError("stopping.min_tokens",
                      absl::StrCat("more than the ", request->stop.max_tokens,
                                   " tokens that the answer may have"));
  }
  return absl::OkStatus();
}

absl::Status CheckNoUnknownFields(const google::protobuf::Message& message) {
  int visited = 0;
  return VisitFields(message, "", &visited);
}

std::vector<std::string> PolicyNames(absl::string_view text) {
  std::vector<std::string> names(1);
  int depth = 0;
  for (const char c : text) {
    if (c == '(') ++depth;
    if (depth == 0 && c == '+') names.emplace_back();
    if (depth == 0 && c != '+' && c != ' ') names.back() += c;
    if (c == ')') --depth;
  }
  return names;
}

absl::Status CheckRequestId(absl::string_view path, absl::string_view id) {
  const bool visible = std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c < 127; });
  if (id.empty() || id.size() > kMaxRequestIdBytes || !visible) {
    return FieldError(path,
                      absl::StrCat("want 1 to ", kMaxRequestIdBytes, " visible ASCII characters"));
  }
  return absl::OkStatus();
}

}  // namespace tessera
