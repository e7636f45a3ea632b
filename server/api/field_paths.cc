#include "server/api/field_paths.h"

#include <iterator>

#include "absl/strings/str_cat.h"
#include "server/api/error_details.h"

namespace tessera {
namespace {

using Form = PromptPaths::Form;

struct Row {
  RequestField field;
  const char* path;  // null: depends on the prompt
};
constexpr Row kPaths[] = {
    {RequestField::kId, "request_id"},
    {RequestField::kPrompt, nullptr},
    {RequestField::kPromptToken, "tokenized.ids"},
    {RequestField::kImage, nullptr},
    {RequestField::kMessage, nullptr},
    {RequestField::kMessageRole, nullptr},
    {RequestField::kMessageImage, nullptr},
    {RequestField::kTemperature, "sampling.temperature"},
    {RequestField::kTopK, "sampling.top_k"},
    {RequestField::kTopP, "sampling.top_p"},
    {RequestField::kMinP, "sampling.min_p"},
    {RequestField::kRepetitionPenalty, "sampling.repetition_penalty"},
    {RequestField::kPresencePenalty, "sampling.presence_penalty"},
    {RequestField::kFrequencyPenalty, "sampling.frequency_penalty"},
    {RequestField::kLogitBias, "sampling.logit_bias"},
    {RequestField::kMaxTokens, "stopping.max_tokens"},
    {RequestField::kMinTokens, "stopping.min_tokens"},
    {RequestField::kStopStrings, "stopping.stop"},
    {RequestField::kStopTokenIds, "stopping.stop_token_ids"},
    {RequestField::kTopLogprobs, "response.top_logprobs"},
    {RequestField::kPolicy, "kv_policy.text"},
};
static_assert(std::size(kPaths) == static_cast<size_t>(RequestField::kPolicy) + 1);

const char* PromptPath(Form form) {
  switch (form) {
    case Form::kContent:
      return "content";
    case Form::kMessages:
      return "messages";
    case Form::kTokenized:
      return "tokenized.ids";
  }
  return "";
}

// The engine sees `content` as a message, which the client never wrote.
std::string MessagePath(const FieldViolation& violation, Form form) {
  if (form != Form::kMessages) return PromptPath(form);
  const std::string message = absl::StrCat("messages[", violation.index, "]");
  switch (violation.field) {
    case RequestField::kMessageRole:
      return absl::StrCat(message, ".role");
    case RequestField::kMessageImage:
      return absl::StrCat(message, ".content[", violation.part, "].image");
    default:
      return absl::StrCat(message, ".content");
  }
}

}  // namespace

std::string ProtoPath(const FieldViolation& violation, const PromptPaths& prompt) {
  switch (violation.field) {
    case RequestField::kPrompt:
      return PromptPath(prompt.form);
    case RequestField::kImage:
      return prompt.images.at(static_cast<size_t>(violation.index));
    case RequestField::kMessage:
    case RequestField::kMessageRole:
    case RequestField::kMessageImage:
      return MessagePath(violation, prompt.form);
    default:
      break;
  }
  const char* path = kPaths[static_cast<size_t>(violation.field)].path;
  return violation.index < 0 ? std::string(path) : absl::StrCat(path, "[", violation.index, "]");
}

absl::Status WithProtoPath(const absl::Status& status, const PromptPaths& prompt) {
  const std::optional<FieldViolation> violation = GetFieldViolation(status);
  if (!violation.has_value()) return status;
  const char* reason = violation->over_limit ? reason::kLimitExceeded : ReasonOfCode(status.code());
  if (status.code() == absl::StatusCode::kFailedPrecondition) reason = reason::kPolicyNotAllowed;
  return FieldError(ProtoPath(*violation, prompt), status.message(), reason, status.code());
}

}  // namespace tessera
